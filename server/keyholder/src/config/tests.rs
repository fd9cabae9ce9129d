use super::*;

const SAMPLE: &str = include_str!("../../samples/keyholder.toml");

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/veilmatch"))
}

/// The sample with one piece of text exchanged.
fn with(old: &str, new: &str) -> String {
    assert_eq!(SAMPLE.matches(old).count(), 1, "{old}");
    SAMPLE.replace(old, new)
}

fn message(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn the_sample_is_read_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    let config = Config::load(&folder.join("keyholder.toml")).unwrap();
    assert_eq!((config.party, config.listen.port()), (Party::K0, 7450));
    assert_eq!(config.data, Path::new("/var/lib/veilmatch/k0"));
    assert_eq!(config.key_file, Path::new("/etc/veilmatch/k0.keys"));
    assert_eq!(config.cards[2], folder.join("cards/k2.card"));
    assert_eq!(config.peers.each_ref().map(|(party, _)| *party), [Party::K1, Party::K2]);
    assert_eq!(config.peers[1].1, "https://k2.example.net:7450");
    assert!(matches!(&config.transport, Transport::Tls(tls) if tls.ca == Path::new("/etc/veilmatch/ca.crt")));
    assert_eq!(config.administrators.len(), 1);
    assert_eq!(config.metrics.unwrap().port(), 9450);
    // The sample says that these are the defaults.
    assert_eq!(config.deadlines, Deadlines::default());
    assert_eq!((config.limits, config.log), (Limits::default(), Log::default()));
    let short = parse(&SAMPLE[..SAMPLE.find("# The rest").unwrap()]).unwrap();
    assert_eq!((short.deadlines, short.limits, short.log), (config.deadlines, config.limits, config.log));
    assert_eq!(short.metrics, None);
}

#[test]
fn what_is_deployed_can_be_used() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let (systemd, compose) = (deploy.join("systemd"), deploy.join("compose/config"));
    for (folder, party) in
        [(systemd, Party::K0), (compose.clone(), Party::K0), (compose.clone(), Party::K1), (compose, Party::K2)]
    {
        let config = Config::load(&folder.join(format!("k{}.toml", party.index()))).unwrap();
        assert_eq!((config.party, config.administrators.len()), (party, 0));
        assert!(matches!(config.transport, Transport::Tls(_)));
        // What unlocks the keys comes from the environment, which must then be the only one to say it.
        assert_eq!(config.unlock, None);
    }
}

#[test]
fn unknown_keys_are_refused_in_every_table() {
    for table in
        ["[keys]\n", "[tls]\n", "[peers]\n", "[cards]\n", "[deadlines]\n", "[limits]\n", "[log]\n", "[metrics]\n"]
    {
        let text = with(&format!("\n{table}"), &format!("\n{table}surprise = 1\n"));
        let message = message(&text);
        assert!(message.contains("surprise") && !message.contains('\n'), "{table}: {message}");
    }
    assert!(message(&format!("surprise = 1\n{SAMPLE}")).contains("surprise"));
    assert!(message(&format!("{SAMPLE}\n[surprise]\nx = 1\n")).contains("surprise"));
}

#[test]
fn every_problem_is_one_line_that_names_its_key() {
    let cases = [
        (with("party = \"k0\"\n", ""), "party"),
        (with("party = \"k0\"", "party = \"k3\""), "party"),
        (with("\"0.0.0.0:7450\"", "\"0.0.0.0\""), "listen"),
        (with("data = \"/var/lib/veilmatch/k0\"", "data = 7"), "data"),
        (with("query = \"10s\"", "query = 10"), "query"),
        (with("query = \"10s\"", "query = \"10 parsecs\""), "query"),
        (with("query = \"10s\"", "query = \"0s\""), "deadlines.query"),
        (with("build = \"10m\"", "build = \"2days\""), "deadlines.build"),
        (with("\"64MiB\"", "\"64 potatoes\""), "max_message"),
        (with("\"64MiB\"", "\"2GiB\""), "limits.max_message"),
        (with("max_sessions = 256", "max_sessions = 0"), "limits.max_sessions"),
        (with("queue = 1024", "queue = -1"), "queue"),
        (with("format = \"json\"", "format = \"xml\""), "format"),
        (with("11qYAYKxCrfVS", "11qYAYKxCrfV"), "administrators[0]"),
        (with("[\"11qY", "[\"11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\", \"11qY"), "administrators[1]"),
        (with("k1 = \"https://k1.example.org:7450\"\n", ""), "peers.k1"),
        (with("https://k1.example.org:7450", "http://k1.example.org:7450"), "peers.k1"),
        (with("https://k1.example.org:7450", "https://k1.example.org"), "peers.k1"),
        (with("https://k1.example.org:7450", "https://a@k1.example.org:7450"), "peers.k1"),
        (with("https://k1.example.org:7450", "https://k1.example.org:7450/path"), "peers.k1"),
        (with("k1 = \"https", "k0 = \"https://k0.example.org:1\"\nk1 = \"https"), "peers.k0"),
        (with("k2 = \"cards/k2.card\"\n", ""), "cards.k2"),
        (with("# plaintext = true", "plaintext = true"), "tls"),
        (with("ca = \"/etc/veilmatch/ca.crt\"\n", ""), "ca"),
        (with("party = \"k0\"", "party = "), "party"),
    ];
    for (text, key) in cases {
        let message = message(&text);
        assert!(message.lines().any(|line| line.contains(&format!("`{key}`"))), "{key}: {message}");
        assert!(message.lines().all(|line| line.contains('`')), "{key}: {message}");
    }
    // Several at once.
    let text = with("queue = 1024", "queue = 0")
        .replace("k2 = \"cards/k2.card\"\n", "")
        .replace("query = \"10s\"", "query = \"1ms\"");
    assert_eq!(message(&text).lines().count(), 3);
}

#[test]
fn plaintext_is_for_loopback_alone() {
    let tls = &SAMPLE[SAMPLE.find("\n[tls]").unwrap()..SAMPLE.find("# The two other").unwrap()];
    let plain = with("# plaintext = true", "plaintext = true").replace(tls, "").replace("https://", "http://");
    let local = plain.replace("k1.example.org", "localhost").replace("k2.example.net", "127.0.0.3");
    let error = message(&local);
    assert_eq!(error, "`listen`: plaintext is allowed on loopback addresses alone");
    let local = local.replace("0.0.0.0:7450", "[::1]:7450");
    assert_eq!(parse(&local).unwrap().transport, Transport::Plaintext);
    let error = message(&local.replace("127.0.0.3", "10.0.0.3"));
    assert_eq!(error, "`peers.k2`: plaintext is allowed on loopback addresses alone");
    assert_eq!(message(&with(tls, "\n")), "`tls`: is missing");
}
