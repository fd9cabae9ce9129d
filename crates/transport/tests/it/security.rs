//! Who gets through, and why the others do not.

use tonic::service::Routes;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use veilmatch_domain::Party;
use veilmatch_transport::{
    Authority, Name, OperatorName, PeerError, Security, TlsError, Trust, cause, channel, listen, peer_name, server,
};

use crate::support::{K0, Serving, authority, current, endpoint, expired, identity, serve};

/// Health that answers with success only to the names it is asked about, so that a test sees whom the server sees.
struct AskedBy(Trust);

type Watch = tokio_stream::Pending<Result<HealthCheckResponse, Status>>;

#[tonic::async_trait]
impl Health for AskedBy {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let name = peer_name(&request, self.0).map_err(|e| veilmatch_wire::status_of(&e, Vec::new()))?;
        let known = request.get_ref().service == name.dns();
        let status = if known { ServingStatus::Serving } else { ServingStatus::NotServing };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream = Watch;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Watch>, Status> {
        Err(Status::unimplemented("not watched"))
    }
}

fn holder(security: &Security) -> Serving {
    let trust = security.trust();
    serve(security, |mut server| server.add_routes(Routes::new(HealthServer::new(AskedBy(trust)))))
}

/// Calls as `client` and expects the server to see its name; otherwise returns everything that the error says.
async fn call(serving: &Serving, client: &Security, expected: &Name) -> Result<(), String> {
    let connection = channel(&endpoint(serving.address, client.trust()), client, expected).unwrap();
    let request = HealthCheckRequest { service: client.name().dns() };
    let answer = HealthClient::new(connection).check(request).await.map_err(|status| cause(&status))?;
    assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "the server sees another name");
    Ok(())
}

fn client() -> Name {
    Name::Client("Desk:1@branch".parse().unwrap())
}

#[tokio::test]
async fn every_kind_of_caller_is_known_by_its_certificate() {
    let ca = authority();
    let serving = holder(&identity(&ca, &ca, &K0, current()));
    let anna = Name::Operator(OperatorName::new("anna").unwrap());
    for name in [client(), anna, Name::Matcher, Name::Holder(Party::K1)] {
        call(&serving, &identity(&ca, &ca, &name, current()), &K0).await.unwrap();
    }
}

/// The client is fine, the server is not.
async fn bad_server(server: &Security, ca: &Authority, reason: &str) {
    let serving = holder(server);
    let refused = call(&serving, &identity(ca, ca, &client(), current()), &K0).await.unwrap_err();
    assert!(refused.contains(reason), "{refused}");
}

#[tokio::test]
async fn a_server_that_is_not_the_expected_one_is_refused() {
    let (ca, other) = (authority(), authority());
    bad_server(&identity(&ca, &ca, &K0, expired()), &ca, "certificate expired").await;
    bad_server(&identity(&ca, &ca, &Name::Holder(Party::K1), current()), &ca, "not valid for name").await;
    bad_server(&identity(&ca, &ca, &client(), current()), &ca, "invalid peer certificate").await;
    // The same issuer name with another key: a forged signature.
    bad_server(&identity(&other, &ca, &K0, current()), &ca, "invalid peer certificate").await;
}

/// The server is fine, the client is not.
async fn bad_client(client: &Security, ca: &Authority, reason: &str) {
    let serving = holder(&identity(ca, ca, &K0, current()));
    let refused = call(&serving, client, &K0).await.unwrap_err();
    assert!(refused.contains(reason), "{refused}");
}

#[tokio::test]
async fn a_caller_without_a_current_certificate_of_the_authority_is_refused() {
    let (ca, other) = (authority(), authority());
    bad_client(&identity(&ca, &ca, &client(), expired()), &ca, "CertificateExpired").await;
    bad_client(&identity(&other, &ca, &client(), current()), &ca, "received fatal alert").await;

    let serving = holder(&identity(&ca, &ca, &K0, current()));
    let nobody = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca.certificate())).domain_name(K0.dns());
    let anonymous = Channel::from_shared(format!("https://{}", serving.address)).unwrap().tls_config(nobody).unwrap();
    let refused = HealthClient::new(anonymous.connect_lazy()).check(HealthCheckRequest::default()).await.unwrap_err();
    assert!(cause(&refused).contains("CertificateRequired"), "{}", cause(&refused));

    let plain = Channel::from_shared(format!("http://{}", serving.address)).unwrap().connect_lazy();
    assert!(HealthClient::new(plain).check(HealthCheckRequest::default()).await.is_err());
}

#[tokio::test]
async fn plaintext_callers_introduce_themselves() {
    let serving = holder(&Security::Plaintext(K0));
    call(&serving, &Security::Plaintext(client()), &K0).await.unwrap();
    let silent = Channel::from_shared(format!("http://{}", serving.address)).unwrap().connect_lazy();
    let mut health = HealthClient::new(silent);
    let refused = health.check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(veilmatch_wire::refusal(&refused).unwrap().code, "unknown-caller");
    let mut twice = Request::new(HealthCheckRequest::default());
    for name in [client().dns(), K0.dns()] {
        twice.metadata_mut().append("veilmatch-name", name.parse().unwrap());
    }
    assert!(health.check(twice).await.is_err());
}

#[tokio::test]
async fn an_introduction_is_not_believed_under_tls_nor_from_elsewhere() {
    let ca = authority();
    let serving = holder(&identity(&ca, &ca, &K0, current()));
    let connection =
        channel(&endpoint(serving.address, Trust::Certificates), &identity(&ca, &ca, &client(), current()), &K0)
            .unwrap();
    let mut request = Request::new(HealthCheckRequest { service: Name::Matcher.dns() });
    request.metadata_mut().insert("veilmatch-name", Name::Matcher.dns().parse().unwrap());
    let answer = HealthClient::new(connection).check(request).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::NotServing);

    let mut request = Request::new(());
    request.metadata_mut().insert("veilmatch-name", Name::Matcher.dns().parse().unwrap());
    assert_eq!(peer_name(&request, Trust::Plaintext), Err(PeerError::Remote));
    assert_eq!(peer_name(&request, Trust::Certificates), Err(PeerError::Anonymous));
}

#[tokio::test]
async fn transports_are_not_mixed_and_plaintext_stays_on_loopback() {
    let ca = authority();
    let tls = identity(&ca, &ca, &client(), current());
    let (secure, plain) = ("127.0.0.1:1".parse().unwrap(), Trust::Plaintext);
    for (trust, security) in [(Trust::Certificates, &Security::Plaintext(client())), (plain, &tls)] {
        let refused = channel(&endpoint(secure, trust), security, &K0).unwrap_err();
        assert!(matches!(refused, TlsError::Mixed { .. }));
    }
    assert!(matches!(listen("0.0.0.0:0".parse().unwrap(), plain), Err(TlsError::Exposed { .. })));
    let taken = listen("127.0.0.1:0".parse().unwrap(), plain).unwrap();
    assert!(matches!(listen(taken.local_addr().unwrap(), plain), Err(TlsError::Listen { .. })));
}

#[tokio::test]
async fn a_key_of_another_certificate_is_refused_at_the_start() {
    let ca = authority();
    let [a, b] = [0, 1].map(|_| ca.issue(&K0, &[], current()).unwrap());
    let key = veilmatch_secret::Secret::new(b.key.expose().clone().into_bytes());
    let mixed =
        veilmatch_transport::Identity::from_pem(a.certificate.into_bytes(), key, ca.certificate().as_bytes().to_vec());
    assert!(matches!(server(&Security::Tls(mixed.unwrap())), Err(TlsError::Material(_))));
}
