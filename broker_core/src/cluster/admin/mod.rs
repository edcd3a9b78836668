//! Topics, groups and dead letters of several brokers, as one answer.
//!
//! What only looks asks those that are well and says who is missing. What changes everything (a purge, a seek, a deletion)
//! asks all, and is refused while one is away: it would come back with what was to be gone.

mod groups;
mod letters;
mod topics;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use prost::Message;
use tonic::Status;

use super::member::{CALL_TIMEOUT, Member};
use super::{Cluster, Reply, is};
use crate::broker::decode_request;
use crate::error::{Code, Error};
use crate::log::LogId;
use crate::wire::v1;

pub(super) use self::topics::{bring_topic, find_topic, reconcile};

/// Runs a call.
pub(super) async fn call(cluster: &Arc<Cluster>, method: &str, request: Bytes) -> Reply<Bytes> {
    Ok(match method {
        "CreateTopic" => topics::create_topic(cluster, &decode_request(method, &request)?).await?.encode_to_vec(),
        "ListTopics" => topics::list_topics(cluster, &decode_request(method, &request)?).await?.encode_to_vec(),
        "DescribeTopic" => topics::describe_topic(cluster, &decode_request(method, &request)?).await?.encode_to_vec(),
        "ConfigureTopic" => topics::configure_topic(cluster, decode_request(method, &request)?).await?.encode_to_vec(),
        "DeleteTopic" => {
            let asked: v1::DeleteTopicRequest = decode_request(method, &request)?;
            all_of::<v1::DeleteTopicResponse>(cluster, method, &asked, Code::TopicNotFound).await?;
            for member in cluster.members() {
                member.forget_topic(&asked.name);
            }
            Vec::new()
        }
        "PurgeTopic" => {
            let asked: v1::PurgeTopicRequest = decode_request(method, &request)?;
            let parts: Vec<v1::PurgeTopicResponse> = all_of(cluster, method, &asked, Code::TopicNotFound).await?;
            v1::PurgeTopicResponse { records: parts.iter().map(|part| part.records).sum() }.encode_to_vec()
        }
        "OpenProducer" => open_producer(cluster, &decode_request(method, &request)?).await?.encode_to_vec(),
        "Read" => read(cluster, request).await?.to_vec(),
        "CreateGroup" => {
            let asked: v1::CreateGroupRequest = decode_request(method, &request)?;
            groups::create_group(cluster, asked).await?.encode_to_vec()
        }
        "ListGroups" => groups::list_groups(cluster, &decode_request(method, &request)?).await?.encode_to_vec(),
        "DescribeGroup" => groups::describe_group(cluster, &decode_request(method, &request)?).await?.encode_to_vec(),
        "SeekGroup" => groups::seek_group(cluster, &decode_request(method, &request)?).await?.encode_to_vec(),
        "DeleteGroup" => {
            let asked: v1::DeleteGroupRequest = decode_request(method, &request)?;
            all_of::<v1::DeleteGroupResponse>(cluster, method, &asked, Code::GroupNotFound).await?;
            Vec::new()
        }
        "ListDeadLetters" => letters::list_dead_letters(cluster, decode_request(method, &request)?).await?,
        "RedriveDeadLetters" => letters::redrive(cluster, decode_request(method, &request)?).await?.encode_to_vec(),
        "DescribeBroker" => describe_broker(cluster).await?.encode_to_vec(),
        "DrainBroker" => drain(cluster, &decode_request(method, &request)?).await?.encode_to_vec(),
        _ => {
            let message =
                format!("this proxy (version {}) does not know the call {method:?}", env!("CARGO_PKG_VERSION"));
            return Err(Error::new(Code::Unsupported, message).into());
        }
    }
    .into())
}

/// Asks all that are well, in the order of their names; a broker that lacks the topic is brought it first.
async fn each<A: Message + Default>(
    cluster: &Arc<Cluster>,
    topic: &str,
    method: &str,
    request: &impl Message,
) -> Vec<(Arc<Member>, Reply<A>)> {
    let Ok(up) = cluster.up_asked().await else { return Vec::new() };
    let asked = up.into_iter().map(|member| async move {
        let answer = match member.ask(method, request).await {
            Err(status) if is(&status, Code::TopicNotFound) && topics::bring_topic(cluster, &member, topic).await => {
                member.ask(method, request).await
            }
            answer => answer,
        };
        (member, answer)
    });
    let mut answers = join_all(asked).await;
    answers.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    answers
}

/// The first good answer; an error of a broker is one only where it is not that it is away.
fn first_or_error<A>(parts: Vec<(Arc<Member>, Reply<A>)>) -> Reply<A> {
    let mut first = None;
    let mut away = None;
    for (_, part) in parts {
        match part {
            Ok(answer) => first = first.or(Some(answer)),
            Err(status) if is(&status, Code::Unavailable) => away = Some(status),
            Err(status) => return Err(status),
        }
    }
    first.ok_or_else(|| away.unwrap_or_else(|| Status::unavailable("no broker answered")))
}

/// Asks every member; refused while one is away. `absent`: what a broker answers that has nothing of it, which is fine unless
/// all do.
async fn all_of<A: Message + Default>(
    cluster: &Arc<Cluster>,
    method: &str,
    request: &impl Message,
    absent: Code,
) -> Reply<Vec<A>> {
    require_all(cluster, method).await?;
    let members = cluster.members();
    let asked = members.iter().map(|member| member.ask::<A>(method, request));
    let (mut answers, mut nothing) = (Vec::new(), None);
    for answer in join_all(asked).await {
        match answer {
            Ok(answer) => answers.push(answer),
            Err(status) if is(&status, absent) => nothing = Some(status),
            Err(status) => return Err(status),
        }
    }
    match nothing {
        Some(status) if answers.is_empty() => Err(status),
        _ => Ok(answers),
    }
}

async fn require_all(cluster: &Cluster, method: &str) -> Reply<()> {
    cluster.soon(|| cluster.missing().is_empty()).await;
    let missing = cluster.missing();
    let Some(first) = missing.first() else { return Ok(()) };
    let message = format!(
        "{method} concerns every broker, and {} ({}) is away: {}. Nothing was done; ask again when all are there",
        first.name,
        first.address,
        first.known().error
    );
    Err(Error::new(Code::Unavailable, message).retry_after_ms(1000).into())
}

fn names(members: &[Arc<Member>]) -> Vec<String> {
    members.iter().map(|member| member.name.to_string()).collect()
}

/// Names of those that are away.
fn missing(cluster: &Cluster) -> BTreeSet<String> {
    names(&cluster.missing()).into_iter().collect()
}

/// Who takes the records of each partition of a topic now.
struct Takers<'a> {
    cluster: &'a Cluster,
    topic: &'a str,
    known: std::cell::RefCell<HashMap<u32, String>>,
}

impl<'a> Takers<'a> {
    fn of(cluster: &'a Cluster, topic: &'a str) -> Self {
        Self { cluster, topic, known: std::cell::RefCell::default() }
    }

    fn is(&self, partition: u32, broker: &str) -> bool {
        let mut known = self.known.borrow_mut();
        let taker = known.entry(partition).or_insert_with(|| {
            taker(self.cluster, self.topic, partition).map_or_else(String::new, |member| member.name.to_string())
        });
        taker == broker
    }
}

/// Who takes the records of a partition now.
fn taker(cluster: &Cluster, topic: &str, partition: u32) -> Option<Arc<Member>> {
    let placed = cluster.placed_at(topic, partition)?;
    if placed.is_up() && !placed.is_draining() {
        return Some(placed);
    }
    let preference = cluster.preference(topic, partition);
    preference.into_iter().find(|member| member.is_up() && !member.is_draining()).or(Some(placed))
}

async fn open_producer(cluster: &Arc<Cluster>, asked: &v1::OpenProducerRequest) -> Reply<v1::OpenProducerResponse> {
    topics::find_topic(cluster, &asked.topic).await?;
    if !asked.new_name {
        // A broker that is away may have the highest sequence of all.
        require_all(cluster, "OpenProducer").await?;
    }
    let parts = each::<v1::OpenProducerResponse>(cluster, &asked.topic, "OpenProducer", asked).await;
    let mut states: BTreeMap<u32, v1::ProducerState> = BTreeMap::new();
    let mut failure = None;
    for (member, part) in parts {
        let part = match part {
            Ok(part) => part,
            Err(status) if asked.new_name && is(&status, Code::Unavailable) => {
                failure = Some(status);
                continue;
            }
            Err(status) => return Err(status),
        };
        for state in part.partitions {
            let takes = taker(cluster, &asked.topic, state.partition).is_some_and(|taker| taker.name == member.name);
            let known = states.entry(state.partition).or_insert_with(|| state.clone());
            known.sequence = known.sequence.max(state.sequence);
            if takes {
                known.log_id = state.log_id;
            }
        }
    }
    if states.is_empty() {
        return Err(failure.unwrap_or_else(|| cluster.all_away().into()));
    }
    Ok(v1::OpenProducerResponse { partitions: states.into_values().collect() })
}

/// The broker that has a log of a partition.
async fn holder(cluster: &Arc<Cluster>, topic: &str, log_id: &[u8]) -> Reply<Arc<Member>> {
    let described = topics::describe_topic(cluster, &v1::DescribeTopicRequest { name: topic.to_owned() }).await?;
    let state = described.partitions.iter().find(|state| state.log_id == log_id);
    if let Some(member) = state.and_then(|state| cluster.named(&state.broker)) {
        return Ok(member);
    }
    let log = <[u8; 16]>::try_from(log_id).map_or_else(|_| format!("{log_id:?}"), |id| format!("{:?}", LogId(id)));
    if described.missing_brokers.is_empty() {
        let message = format!(
            "no broker has log {log} of topic {topic:?}: its partition was made anew, offsets of the old one mean nothing; \
             begin at its start"
        );
        return Err(Error::new(Code::PositionLogId, message).into());
    }
    let message =
        format!("log {log} of topic {topic:?} is at a broker that is away: {}", described.missing_brokers.join(", "));
    Err(Error::new(Code::Unavailable, message).retry_after_ms(1000).into())
}

async fn read(cluster: &Arc<Cluster>, request: Bytes) -> Reply<Bytes> {
    let asked: v1::ReadRequest = decode_request("Read", &request)?;
    let topic = topics::find_topic(cluster, &asked.topic).await?;
    let limit = std::time::Duration::from_millis(u64::from(asked.wait_ms)) + CALL_TIMEOUT;
    let log_id = asked.from.as_ref().map(|from| from.log_id.clone()).unwrap_or_default();
    let member = if log_id.is_empty() {
        taker(cluster, &topic.name, asked.partition).or_else(|| cluster.up().into_iter().next())
    } else {
        Some(holder(cluster, &asked.topic, &log_id).await?)
    };
    let Some(member) = member else { return Err(cluster.all_away().into()) };
    member.unary("Read", request, limit).await
}

fn member_named(cluster: &Cluster, name: &str) -> Reply<Arc<Member>> {
    cluster.named(name).ok_or_else(|| {
        let names = names(&cluster.members()).join(", ");
        let message = format!("there is no broker {name:?}: expected one of {names}");
        Error::new(Code::InvalidArgument, message).field("broker").into()
    })
}

async fn describe_broker(cluster: &Arc<Cluster>) -> Reply<v1::DescribeBrokerResponse> {
    let up = cluster.up_asked().await?;
    let asked = v1::DescribeBrokerRequest {};
    let parts =
        join_all(up.iter().map(|member| member.ask::<v1::DescribeBrokerResponse>("DescribeBroker", &asked))).await;
    let mut whole: Option<v1::DescribeBrokerResponse> = None;
    for part in parts.into_iter().flatten() {
        whole = Some(match whole {
            None => part,
            Some(whole) => v1::DescribeBrokerResponse {
                free_bytes: whole.free_bytes.min(part.free_bytes),
                min_free_bytes: whole.min_free_bytes.max(part.min_free_bytes),
                started_ns: whole.started_ns.max(part.started_ns),
                draining: whole.draining && part.draining,
                partitions: whole.partitions.max(part.partitions),
                ..whole
            },
        });
    }
    let Some(whole) = whole else { return Err(cluster.all_away().into()) };
    let members = cluster.members().into_iter().map(|member| {
        let known = member.known();
        v1::Member {
            name: member.name.to_string(),
            address: member.address.clone(),
            healthy: member.is_up(),
            draining: known.draining,
            broker_id: known.broker_id,
            version: known.version,
            error: known.error,
        }
    });
    Ok(v1::DescribeBrokerResponse {
        broker_id: Vec::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        data_dir: String::new(),
        name: String::new(),
        members: members.collect(),
        ..whole
    })
}

async fn drain(cluster: &Arc<Cluster>, asked: &v1::DrainBrokerRequest) -> Reply<v1::DrainBrokerResponse> {
    cluster.up_soon().await?;
    if asked.broker.is_empty() {
        let names = names(&cluster.members()).join(", ");
        let message = format!("there are several brokers here, and none is named: expected one of {names}");
        return Err(Error::new(Code::InvalidArgument, message).field("broker").into());
    }
    let member = member_named(cluster, &asked.broker)?;
    if !member.is_up() {
        return Err(member.away(&member.known().error).into());
    }
    let one = v1::DrainBrokerRequest { draining: asked.draining, broker: String::new() };
    let answer = member.ask("DrainBroker", &one).await?;
    member.note_draining(asked.draining);
    Ok(answer)
}
