//! The descriptors serve reflection: a client lists the services and finds every file over a loopback socket.

use tokio_stream::StreamExt as _;
use tonic::transport::{Channel, Server, server::TcpIncoming};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

async fn ask(client: &mut ServerReflectionClient<Channel>, request: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer: ServerReflectionResponse = answers.next().await.unwrap().unwrap();
    answer.message_response.unwrap()
}

#[tokio::test]
async fn reflection_lists_services_and_describes_their_messages() {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(veilmatch_wire::FILE_DESCRIPTOR_SET)
        .build_v1()
        .unwrap();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let server = tokio::spawn(Server::builder().add_service(reflection).serve_with_incoming(incoming));
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = ServerReflectionClient::new(channel);

    let MessageResponse::ListServicesResponse(list) =
        ask(&mut client, MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list")
    };
    let names: Vec<_> = list.service.iter().map(|s| s.name.as_str()).collect();
    for service in ["veilmatch.v1.Matcher", "veilmatch.v1.Twin", "veilmatch.v1.KeyHolder"] {
        assert!(names.contains(&service), "{names:?}");
    }
    for symbol in ["veilmatch.v1.Matcher", "veilmatch.v1.KeyHolder", "veilmatch.v1.Policy", "veilmatch.v1.Chunk"] {
        let answer = ask(&mut client, MessageRequest::FileContainingSymbol(symbol.into())).await;
        let MessageResponse::FileDescriptorResponse(files) = answer else { panic!("{symbol}: {answer:?}") };
        assert!(!files.file_descriptor_proto.is_empty());
    }
    server.abort();
}
