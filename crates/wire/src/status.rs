//! Refusals as gRPC statuses and back.
//!
//! The refusal travels as the detail of a `google.rpc.Status` in `grpc-status-details-bin`, as gRPC tools of every
//! language expect. All of it goes into HTTP/2 headers, so its size is bounded here.

use prost::Message as _;
use tonic::Code;
use veilmatch_domain::{Explain, Status, Suspect};
use veilmatch_glwe::Refusal;

use crate::v1;

/// Most bytes of a refusal's code.
pub const MAX_CODE: usize = 64;
/// Most bytes of a refusal's message; the rest is cut off when it is sent.
pub const MAX_MESSAGE: usize = 1024;
/// Most suspects of a refusal.
pub const MAX_SUSPECTS: usize = 8;

const TYPE_URL: &str = "type.googleapis.com/veilmatch.v1.Refusal";

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// The gRPC status of a refusal, with the refusal as its detail.
#[must_use]
pub fn status(refusal: &Refusal) -> tonic::Status {
    let code = code(refusal.status());
    let detail = v1::Refusal::from(refusal);
    let message = detail.message.clone();
    let any = prost_types::Any { type_url: TYPE_URL.to_owned(), value: detail.encode_to_vec() };
    // The text travels in the header and in the detail; a third copy would only make the headers longer.
    let details = RpcStatus { code: code as i32, message: String::new(), details: vec![any] };
    tonic::Status::with_details(code, message, details.encode_to_vec().into())
}

/// The gRPC status of an error.
#[must_use]
pub fn status_of(error: &dyn Explain, suspects: Vec<Suspect>) -> tonic::Status {
    status(&Refusal::new(error, suspects))
}

/// The refusal that a status carries; `None` if it comes from somewhere else, for example from a broken connection.
#[must_use]
pub fn refusal(status: &tonic::Status) -> Option<Refusal> {
    let details = RpcStatus::decode(status.details()).ok()?;
    let any = details.details.into_iter().find(|any| any.type_url == TYPE_URL)?;
    v1::Refusal::decode(any.value.as_slice()).ok()?.try_into().ok()
}

fn code(status: Status) -> Code {
    match status {
        Status::InvalidArgument => Code::InvalidArgument,
        Status::NotFound => Code::NotFound,
        Status::AlreadyExists => Code::AlreadyExists,
        Status::PermissionDenied => Code::PermissionDenied,
        Status::FailedPrecondition => Code::FailedPrecondition,
        Status::ResourceExhausted => Code::ResourceExhausted,
        Status::Unavailable => Code::Unavailable,
        Status::DataLoss => Code::DataLoss,
        _ => Code::Aborted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WireError;
    use proptest::prelude::*;

    #[test]
    fn an_error_keeps_code_status_text_and_suspects() {
        let sent = status_of(&WireError::Missing { field: "name" }, vec![Suspect::Client]);
        assert_eq!(sent.code(), Code::InvalidArgument);
        assert!(sent.message().starts_with("the field `name` is missing; "));
        let read = refusal(&sent).unwrap();
        assert_eq!((read.code.as_str(), read.status()), ("missing-field", Status::InvalidArgument));
        assert_eq!((read.message.as_str(), read.suspects), (sent.message(), vec![Suspect::Client]));
    }

    #[test]
    fn every_status_has_a_code_of_its_own() {
        for number in [3u8, 5, 6, 7, 8, 9, 10, 14, 15] {
            let refusal = Refusal { code: "x".into(), status: number, suspects: Vec::new(), message: "x".into() };
            assert_eq!(status(&refusal).code() as u8, number);
        }
    }

    #[test]
    fn foreign_statuses_carry_no_refusal() {
        assert_eq!(refusal(&tonic::Status::unavailable("connection reset")), None);
        assert_eq!(refusal(&tonic::Status::with_details(Code::Aborted, "x", vec![0xff; 9].into())), None);
        let other = prost_types::Any { type_url: "type.googleapis.com/google.rpc.Help".into(), value: Vec::new() };
        let details = RpcStatus { code: 10, message: String::new(), details: vec![other] };
        let sent = tonic::Status::with_details(Code::Aborted, "x", details.encode_to_vec().into());
        assert_eq!(refusal(&sent), None);
    }

    #[test]
    fn long_texts_are_cut_between_characters_and_fit_into_headers() {
        let suspects = vec![Suspect::Matcher; 20];
        let long = Refusal { code: "c".repeat(100), status: 10, suspects, message: "é".repeat(100_000) };
        let sent = status(&long);
        let read = refusal(&sent).unwrap();
        assert_eq!((read.code.len(), read.message.len(), read.suspects.len()), (MAX_CODE, MAX_MESSAGE, MAX_SUSPECTS));
        // Hyper takes 16 KiB of headers; the text is percent-encoded, the details are in base64.
        assert!(3 * sent.message().len() + sent.details().len() * 4 / 3 < 8 << 10);
    }

    proptest! {
        #[test]
        fn random_details_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = refusal(&tonic::Status::with_details(Code::Aborted, "x", bytes.into()));
        }
    }
}
