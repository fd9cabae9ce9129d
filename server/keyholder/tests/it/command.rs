//! The command: first steps, exit codes, and its end on SIGTERM.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output};

use rustix::process::{Pid, Signal, kill_process};
use veilmatch_domain::Party;

use crate::deployment::{Deployment, status, until, write_private};

fn command(deployment: &Deployment, arguments: &[&str]) -> Command {
    let unlock = deployment.path("unlock");
    if !unlock.exists() {
        write_private(unlock.parent().unwrap(), &[7; 32]);
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_veilmatch-keyholder"));
    command.args(arguments).env_remove("VEILMATCH_KEY_PASSPHRASE").env("VEILMATCH_KEY_FILE", unlock);
    command
}

fn output(deployment: &Deployment, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command(deployment, arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

#[test]
fn init_makes_keys_once_and_codes_say_whose_fault_it_is() {
    let deployment = Deployment::new();
    let path = deployment.config_path(Party::K2);
    let config = path.to_str().unwrap();
    let (code, text) = output(&deployment, &["init", "--config", config]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("exists already"), "{text}");

    let (code, known) = output(&deployment, &["card", "--config", config]);
    assert!(code == Some(0) && known.contains("fingerprint"), "{known}");
    std::fs::remove_file(deployment.path("k2.keys")).unwrap();
    std::fs::remove_file(deployment.path("k2.card")).unwrap();
    let (code, made) = output(&deployment, &["init", "--config", config]);
    assert!(code == Some(0) && made.contains("fingerprint") && made != known, "{made}");
    assert_eq!(output(&deployment, &["card", "--config", config]), (Some(0), made));

    std::fs::write(&path, "surprise = 1\n").unwrap();
    let (code, text) = output(&deployment, &["--config", config]);
    assert!(code == Some(2) && text.contains("surprise"), "{text}");
    let (code, text) = output(&deployment, &["--help"]);
    assert!(code == Some(0) && text.contains("Examples:") && text.contains("Exit codes:"), "{text}");
    assert_eq!(output(&deployment, &["--surprise"]).0, Some(2));
}

/// Killed if a test ends before it does.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The page of metrics.
fn read(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_it_in_order_and_sigkill_loses_nothing() {
    let deployment = Deployment::new();
    let path = deployment.config_path(Party::K0);
    let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = std::fs::read_to_string(&path).unwrap() + &format!("[metrics]\nlisten = \"{metrics}\"\n");
    std::fs::write(&path, config).unwrap();
    let start = || Process(command(&deployment, &["--config", path.to_str().unwrap()]).spawn().unwrap());
    let mut client = deployment.operator(Party::K0);
    let mut killed = start();
    until("it serves", async || status(&mut deployment.operator(Party::K0)).await.is_ok()).await;
    client.administer(deployment.registration("gate")).await.unwrap();
    let page = read(metrics);
    for line in ["audit_entries_total 1", "peers_connected 0", "storage_sync_seconds_count 1"] {
        assert!(page.contains(&format!("veilmatch_keyholder_{line}\n")), "{line}: {page}");
    }
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();

    let mut ended = start();
    until("it serves again", async || status(&mut deployment.operator(Party::K0)).await.is_ok()).await;
    assert_eq!(crate::deployment::code(client.administer(deployment.registration("gate")).await), "other-client-key");
    kill_process(Pid::from_child(&ended.0), Signal::TERM).unwrap();
    assert_eq!(ended.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_share_is_installed_if_it_is_this_holders_and_of_the_key_that_was_compared() {
    use veilmatch_keyholder::card::read_card;
    use veilmatch_keyholder::share::seal_share;
    use veilmatch_paillier::KeySize;
    use veilmatch_secret::os_entropy;
    use veilmatch_threshold::test_keys;

    let deployment = Deployment::new();
    let config = deployment.config_path(Party::K1);
    let dealt = test_keys::deal(KeySize::Bits2048, &mut *os_entropy()).unwrap();
    let fingerprint = veilmatch_service::fingerprint(&dealt.key.digest().0);
    for (party, share) in Party::ALL.into_iter().zip(&dealt.shares) {
        let card = read_card(&deployment.path(&format!("k{}.card", party.index()))).unwrap();
        let sealed = seal_share(share, &card, &mut *os_entropy()).unwrap();
        std::fs::write(deployment.path(&format!("k{}.share", party.index())), sealed).unwrap();
    }
    let install = |share: &str, fingerprint: &str| {
        let (share, config) = (deployment.path(share), config.to_str().unwrap());
        output(
            &deployment,
            &["install-share", share.to_str().unwrap(), "--fingerprint", fingerprint, "--config", config],
        )
    };
    let (code, text) = install("k1.share", &fingerprint.replacen(['0', '1', '2', '3', '4'], "5", 1));
    assert!(code == Some(3) && text.contains(&fingerprint), "{text}");
    let (code, text) = install("k0.share", &fingerprint);
    assert!(code == Some(3) && text.contains("is for key holder K0; this is key holder K1"), "{text}");
    for _ in 0..2 {
        let (code, text) = install("k1.share", &fingerprint);
        assert!(code == Some(0) && text.contains("paillier-2048-v1"), "{text}");
    }
    // A second ceremony deals another key, even from the same primes: the holder keeps the first.
    let other = test_keys::deal(KeySize::Bits2048, &mut *os_entropy()).unwrap();
    let card = read_card(&deployment.path("k1.card")).unwrap();
    let sealed = seal_share(&other.shares[1], &card, &mut *os_entropy()).unwrap();
    std::fs::write(deployment.path("k1.share"), sealed).unwrap();
    let (code, text) = install("k1.share", &veilmatch_service::fingerprint(&other.key.digest().0));
    assert!(code == Some(3) && text.contains("another key"), "{text}");
}
