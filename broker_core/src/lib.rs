//! The telemetry broker's core: a durable log, a queue with leases over it, a hash ring, and telemetry codecs.
//!
//! | room | what it does |
//! |---|---|
//! | [`log`] | segments of CRC-framed batches, recovery, flush policies |
//! | [`queue`] | leases, visibility timeouts, groups, the ack journal; knows offsets, never bytes |
//! | [`broker`] | topics of partitions, producers and groups over them: the public API |
//! | [`ring`], [`partitioner`] | which node, which partition |
//! | [`telemetry`] | codecs: DCGM CSV to line protocol, line protocol to Arrow columns |
//! | [`wire`] | the protobuf messages, and the walk over record bytes |
//! | `access` | who may do what: tokens, roles on topics, what each call needs (feature `grpc`) |
//! | `cluster` | several brokers as one: routing, health, failover (feature `grpc`) |
//! | `grpc` | `BrokerService` over HTTP/2, both ends (feature `grpc`) |
//! | [`inspect`] | verify, repair and dump of a folder that no broker has open |
//! | [`disk`], [`clock`] | the file system and the time, injected |
//!
//! Nothing outside `python` knows Python; `cargo test` needs no interpreter.

#[cfg(feature = "grpc")]
pub mod access;
pub mod broker;
pub mod clock;
#[cfg(feature = "grpc")]
pub mod cluster;
pub mod disk;
pub mod error;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod inspect;
pub mod log;
pub mod partitioner;
pub mod queue;
pub mod ring;
pub mod telemetry;
pub mod wire;

#[cfg(feature = "python")]
mod python;
