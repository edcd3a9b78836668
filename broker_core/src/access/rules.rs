//! What each call needs. One table for every service that this project has; a test holds it against the protos.

use super::grant::Role;

/// What a caller must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: for probes.
    Nothing,
    /// A token that is valid.
    Token,
    /// A role on the topic, whichever.
    AnyRole,
    /// This role on the topic.
    Role(Role),
    /// This role on all topics.
    RoleEverywhere(Role),
    /// Every role on all topics: what is not in the table.
    Everything,
}

const PRODUCE: Need = Need::Role(Role::Produce);
const CONSUME: Need = Need::Role(Role::Consume);
const ADMIN: Need = Need::Role(Role::Admin);
const ADMIN_EVERYWHERE: Need = Need::RoleEverywhere(Role::Admin);

/// Every call. The topic of one that needs a role on it is field 1 of its request.
#[rustfmt::skip]
pub const CALLS: &[(&str, Need)] = &[
    ("/telemetry_broker.v1.BrokerService/CreateTopic", ADMIN),
    ("/telemetry_broker.v1.BrokerService/ListTopics", Need::Token), // lists those that the caller has a role on
    ("/telemetry_broker.v1.BrokerService/DescribeTopic", Need::AnyRole),
    ("/telemetry_broker.v1.BrokerService/ConfigureTopic", ADMIN),
    ("/telemetry_broker.v1.BrokerService/DeleteTopic", ADMIN),
    ("/telemetry_broker.v1.BrokerService/PurgeTopic", ADMIN),
    ("/telemetry_broker.v1.BrokerService/OpenProducer", PRODUCE),
    ("/telemetry_broker.v1.BrokerService/Produce", PRODUCE),
    ("/telemetry_broker.v1.BrokerService/ProduceStream", PRODUCE), // of each message
    ("/telemetry_broker.v1.BrokerService/Receive", CONSUME),
    ("/telemetry_broker.v1.BrokerService/Consume", CONSUME), // of its start
    ("/telemetry_broker.v1.BrokerService/Ack", CONSUME),
    ("/telemetry_broker.v1.BrokerService/Nack", CONSUME),
    ("/telemetry_broker.v1.BrokerService/Extend", CONSUME),
    ("/telemetry_broker.v1.BrokerService/Read", CONSUME),
    ("/telemetry_broker.v1.BrokerService/CreateGroup", CONSUME),
    ("/telemetry_broker.v1.BrokerService/ListGroups", Need::AnyRole),
    ("/telemetry_broker.v1.BrokerService/DescribeGroup", Need::AnyRole),
    ("/telemetry_broker.v1.BrokerService/SeekGroup", CONSUME),
    ("/telemetry_broker.v1.BrokerService/DeleteGroup", ADMIN),
    ("/telemetry_broker.v1.BrokerService/ListDeadLetters", CONSUME),
    ("/telemetry_broker.v1.BrokerService/RedriveDeadLetters", ADMIN),
    ("/telemetry_broker.v1.BrokerService/DescribeBroker", Need::Token),
    ("/telemetry_broker.v1.BrokerService/DrainBroker", ADMIN_EVERYWHERE),
    ("/telemetry_broker.v1.CollectorService/GetStatus", Need::Token),
    ("/telemetry_broker.v1.CollectorService/Flush", ADMIN_EVERYWHERE),
    ("/telemetry_broker.v1.CollectorService/Pause", ADMIN_EVERYWHERE),
    // These are for the keys of the API, which the service behind this front asks for itself.
    ("/telemetry_broker.v1.QueryService/ListGpus", Need::Nothing),
    ("/telemetry_broker.v1.QueryService/GetTelemetry", Need::Nothing),
    ("/telemetry_broker.v1.QueryService/Latest", Need::Nothing),
    ("/telemetry_broker.v1.QueryService/Watch", Need::Nothing),
    ("/grpc.health.v1.Health/Check", Need::Nothing),
    ("/grpc.health.v1.Health/List", Need::Nothing),
    ("/grpc.health.v1.Health/Watch", Need::Nothing),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Need::Token),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Need::Token),
];

/// What a call needs, by its path.
pub fn need_of(path: &str) -> Need {
    CALLS.iter().find(|(known, _)| *known == path).map_or(Need::Everything, |(_, need)| *need)
}
