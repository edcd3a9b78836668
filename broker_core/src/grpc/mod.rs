//! gRPC over HTTP/2: messages are bytes here, and stay what they are on the wire.

pub mod client;
mod framing;
mod parts;
pub mod server;
pub mod status;
mod tls;

/// Bytes of a message, at most, in either direction: a request or an answer is at most 8 MiB of records and their frame.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Prefix of the paths of `BrokerService`'s methods.
pub const SERVICE: &str = "/telemetry_broker.v1.BrokerService/";
