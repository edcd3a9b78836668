//! Topics, groups and dead letters of several brokers, as one answer.
//!
//! What only looks asks those that are well and says who is missing. What changes everything (a purge, a seek, a deletion)
//! asks all, and is refused while one is away: it would come back with what was to be gone.

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

/// Runs a call.
pub(super) async fn call(cluster: &Arc<Cluster>, method: &str, request: Bytes) -> Reply<Bytes> {
    Ok(match method {
        "CreateTopic" => create_topic(cluster, &decode_request(method, &request)?).await?.encode_to_vec(),
        "ListTopics" => list_topics(cluster, &decode_request(method, &request)?).await?.encode_to_vec(),
        "DescribeTopic" => describe_topic(cluster, &decode_request(method, &request)?).await?.encode_to_vec(),
        "ConfigureTopic" => configure_topic(cluster, decode_request(method, &request)?).await?.encode_to_vec(),
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
            create_group(cluster, asked).await?.encode_to_vec()
        }
        "ListGroups" => list_groups(cluster, &decode_request(method, &request)?).await?.encode_to_vec(),
        "DescribeGroup" => describe_group(cluster, &decode_request(method, &request)?).await?.encode_to_vec(),
        "SeekGroup" => seek_group(cluster, &decode_request(method, &request)?).await?.encode_to_vec(),
        "DeleteGroup" => {
            let asked: v1::DeleteGroupRequest = decode_request(method, &request)?;
            all_of::<v1::DeleteGroupResponse>(cluster, method, &asked, Code::GroupNotFound).await?;
            Vec::new()
        }
        "ListDeadLetters" => list_dead_letters(cluster, decode_request(method, &request)?).await?,
        "RedriveDeadLetters" => redrive(cluster, decode_request(method, &request)?).await?.encode_to_vec(),
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

/// A topic in its newest version: as it was listed last, or by asking.
pub(super) async fn find_topic(cluster: &Arc<Cluster>, name: &str) -> Reply<v1::Topic> {
    if let Some(topic) = cluster.topic(name) {
        return Ok(topic);
    }
    let asked = v1::DescribeTopicRequest { name: name.to_owned() };
    let mut failure = None;
    for member in cluster.up_soon().await? {
        match member.ask::<v1::DescribeTopicResponse>("DescribeTopic", &asked).await {
            Ok(v1::DescribeTopicResponse { topic: Some(topic), .. }) => {
                member.note_topic(topic.clone());
                return Ok(topic);
            }
            Ok(_) => {}
            Err(status) => failure = Some(status),
        }
    }
    Err(failure.unwrap_or_else(|| cluster.all_away().into()))
}

/// Makes a topic that others have at a broker that has not. Says whether it did.
pub(super) async fn bring_topic(cluster: &Arc<Cluster>, member: &Arc<Member>, name: &str) -> bool {
    let asked = v1::DescribeTopicRequest { name: name.to_owned() };
    member.forget_topic(name);
    for other in cluster.up() {
        if Arc::ptr_eq(&other, member) {
            continue;
        }
        // Asked anew: what is remembered may have been deleted meanwhile.
        match other.ask::<v1::DescribeTopicResponse>("DescribeTopic", &asked).await {
            Ok(v1::DescribeTopicResponse { topic: Some(topic), .. }) => return make(cluster, member, &topic).await,
            _ => other.forget_topic(name),
        }
    }
    false
}

/// Makes a topic as it is elsewhere.
async fn make(cluster: &Cluster, member: &Member, topic: &v1::Topic) -> bool {
    let asked =
        v1::CreateTopicRequest { name: topic.name.clone(), config: topic.config, config_version: topic.config_version };
    match member.ask::<v1::CreateTopicResponse>("CreateTopic", &asked).await {
        Ok(made) => {
            if let Some(made) = made.topic {
                member.note_topic(made);
            }
            cluster.say(false, format!("topic {} was made at {}, which had none", topic.name, member.name));
            true
        }
        Err(status) => {
            let why = status.message();
            cluster.say(true, format!("topic {} could not be made at {}: {why}", topic.name, member.name));
            false
        }
    }
}

/// Gives a broker that has come up the topics and configurations that it has missed, and the others those that it has.
pub(super) async fn reconcile(cluster: &Arc<Cluster>, came: &Arc<Member>) {
    let newest = cluster.topics();
    for (name, topic) in newest {
        let holders: Vec<Arc<Member>> = cluster
            .members()
            .into_iter()
            .filter(|member| member.is_up())
            .filter(|member| member.topic(&name).is_some_and(|known| known.config_version == topic.config_version))
            .collect();
        for member in cluster.members().into_iter().filter(|member| member.is_up()) {
            match member.topic(&name) {
                None if Arc::ptr_eq(&member, came) || holders.iter().any(|holder| Arc::ptr_eq(holder, came)) => {
                    bring_topic(cluster, &member, &name).await;
                }
                Some(known) if known.config_version < topic.config_version && !holders.is_empty() => {
                    let asked = v1::ConfigureTopicRequest {
                        name: name.clone(),
                        config: topic.config,
                        if_version: None,
                        config_version: topic.config_version,
                    };
                    match member.ask::<v1::ConfigureTopicResponse>("ConfigureTopic", &asked).await {
                        Ok(answer) => {
                            if let Some(topic) = answer.topic {
                                member.note_topic(topic);
                            }
                        }
                        Err(status) => cluster.say(
                            true,
                            format!("topic {name} could not be configured at {}: {}", member.name, status.message()),
                        ),
                    }
                }
                _ => {}
            }
        }
    }
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
            Err(status) if is(&status, Code::TopicNotFound) && bring_topic(cluster, &member, topic).await => {
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

async fn create_topic(cluster: &Arc<Cluster>, asked: &v1::CreateTopicRequest) -> Reply<v1::CreateTopicResponse> {
    let up = cluster.up_asked().await?;
    // One first: where brokers have defaults of their own, all take the configuration that it made.
    let mut made = None;
    let mut failure = None;
    for member in &up {
        match member.ask::<v1::CreateTopicResponse>("CreateTopic", asked).await {
            Ok(v1::CreateTopicResponse { topic: Some(topic) }) => {
                member.note_topic(topic.clone());
                made = Some((member.clone(), topic));
                break;
            }
            Ok(_) => {}
            Err(status) if is(&status, Code::Unavailable) => failure = Some(status),
            Err(status) => return Err(status),
        }
    }
    let Some((first, topic)) = made else { return Err(failure.unwrap_or_else(|| cluster.all_away().into())) };
    let others = up.iter().filter(|member| !Arc::ptr_eq(member, &first)).map(|member| async {
        let same = v1::CreateTopicRequest {
            name: topic.name.clone(),
            config: topic.config,
            config_version: topic.config_version,
        };
        let answer = member.ask::<v1::CreateTopicResponse>("CreateTopic", &same).await?;
        if let Some(topic) = answer.topic {
            member.note_topic(topic);
        }
        Ok::<_, Status>(())
    });
    for outcome in join_all(others).await {
        match outcome {
            Err(status) if !is(&status, Code::Unavailable) => return Err(status),
            _ => {}
        }
    }
    Ok(v1::CreateTopicResponse { topic: Some(topic) })
}

async fn configure_topic(
    cluster: &Arc<Cluster>,
    asked: v1::ConfigureTopicRequest,
) -> Reply<v1::ConfigureTopicResponse> {
    let newest = find_topic(cluster, &asked.name).await?;
    let up = cluster.up_asked().await?;
    // One that has the newest version makes the change, the others take it over.
    let holder = up
        .iter()
        .find(|member| member.topic(&asked.name).is_some_and(|known| known.config_version == newest.config_version))
        .or(up.first())
        .cloned();
    let Some(holder) = holder else { return Err(cluster.all_away().into()) };
    let answer: v1::ConfigureTopicResponse = holder.ask("ConfigureTopic", &asked).await?;
    if let Some(topic) = &answer.topic {
        holder.note_topic(topic.clone());
        let same = v1::ConfigureTopicRequest {
            name: topic.name.clone(),
            config: topic.config,
            if_version: None,
            config_version: topic.config_version,
        };
        let others = up.iter().filter(|member| !Arc::ptr_eq(member, &holder)).map(|member| {
            let same = &same;
            async move { (member.clone(), member.ask::<v1::ConfigureTopicResponse>("ConfigureTopic", same).await) }
        });
        for (member, outcome) in join_all(others).await {
            match outcome {
                Ok(answer) => {
                    if let Some(topic) = answer.topic {
                        member.note_topic(topic);
                    }
                }
                Err(status) if is(&status, Code::TopicNotFound) => {
                    bring_topic(cluster, &member, &asked.name).await;
                }
                // It takes it over when it is back.
                Err(status) if is(&status, Code::Unavailable) => {}
                Err(status) => return Err(status),
            }
        }
    }
    Ok(answer)
}

async fn list_topics(cluster: &Arc<Cluster>, asked: &v1::ListTopicsRequest) -> Reply<v1::ListTopicsResponse> {
    // One that is well answers for all in nearly every case; those that the others have beside it are joined to its page.
    let mut newest: BTreeMap<String, v1::Topic> = BTreeMap::new();
    let mut more = false;
    let mut end: Option<String> = None;
    let mut failure = None;
    let up = cluster.up_asked().await?;
    let pages = join_all(up.iter().map(|member| member.ask::<v1::ListTopicsResponse>("ListTopics", asked))).await;
    let mut answered = false;
    for page in pages {
        let page = match page {
            Ok(page) => page,
            Err(status) => {
                failure = Some(status);
                continue;
            }
        };
        answered = true;
        if page.more {
            more = true;
            let last = page.topics.last().map(|topic| topic.name.clone());
            end = match (end, last) {
                (Some(end), Some(last)) => Some(end.min(last)),
                (end, last) => end.or(last),
            };
        }
        for topic in page.topics {
            let known = newest.get(&topic.name);
            if known.is_none_or(|known| known.config_version < topic.config_version) {
                newest.insert(topic.name.clone(), topic);
            }
        }
    }
    if !answered {
        return Err(failure.unwrap_or_else(|| cluster.all_away().into()));
    }
    let mut topics: Vec<v1::Topic> =
        newest.into_values().filter(|topic| end.as_ref().is_none_or(|end| topic.name <= *end)).collect();
    let most = usize::try_from(asked.max_topics).unwrap_or(usize::MAX);
    if most > 0 && topics.len() > most {
        topics.truncate(most);
        more = true;
    }
    Ok(v1::ListTopicsResponse { topics, more })
}

async fn describe_topic(cluster: &Arc<Cluster>, asked: &v1::DescribeTopicRequest) -> Reply<v1::DescribeTopicResponse> {
    find_topic(cluster, &asked.name).await?;
    let parts = each::<v1::DescribeTopicResponse>(cluster, &asked.name, "DescribeTopic", asked).await;
    let mut missing = missing(cluster);
    let mut topic: Option<v1::Topic> = None;
    let mut partitions = Vec::new();
    let mut failure = None;
    for (member, part) in parts {
        let part = match part {
            Ok(part) => part,
            Err(status) => {
                missing.insert(member.name.to_string());
                failure = Some(status);
                continue;
            }
        };
        if let Some(found) = part.topic
            && topic.as_ref().is_none_or(|topic| topic.config_version < found.config_version)
        {
            topic = Some(found);
        }
        partitions.extend(
            part.partitions.into_iter().map(|state| v1::PartitionState { broker: member.name.to_string(), ..state }),
        );
    }
    if topic.is_none() {
        return Err(failure.unwrap_or_else(|| cluster.all_away().into()));
    }
    let takers = Takers::of(cluster, &asked.name);
    let taker = |state: &v1::PartitionState| takers.is(state.partition, &state.broker);
    partitions.retain(|state| state.end_offset > 0 || taker(state));
    partitions.sort_by_key(|state| (state.partition, !taker(state)));
    Ok(v1::DescribeTopicResponse { topic, partitions, missing_brokers: missing.into_iter().collect() })
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
    find_topic(cluster, &asked.topic).await?;
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
    let described = describe_topic(cluster, &v1::DescribeTopicRequest { name: topic.to_owned() }).await?;
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
    let topic = find_topic(cluster, &asked.topic).await?;
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

async fn list_groups(cluster: &Arc<Cluster>, asked: &v1::ListGroupsRequest) -> Reply<v1::ListGroupsResponse> {
    find_topic(cluster, &asked.topic).await?;
    let parts = each::<v1::ListGroupsResponse>(cluster, &asked.topic, "ListGroups", asked).await;
    let mut groups: BTreeMap<String, v1::Group> = BTreeMap::new();
    let (mut answered, mut failure) = (false, None);
    for (_, part) in parts {
        match part {
            Ok(part) => {
                answered = true;
                groups.extend(part.groups.into_iter().map(|group| (group.name.clone(), group)));
            }
            Err(status) => failure = Some(status),
        }
    }
    match failure {
        Some(status) if !answered => Err(status),
        _ => Ok(v1::ListGroupsResponse { groups: groups.into_values().collect() }),
    }
}

async fn create_group(cluster: &Arc<Cluster>, asked: v1::CreateGroupRequest) -> Reply<v1::CreateGroupResponse> {
    find_topic(cluster, &asked.topic).await?;
    let mut parts = each::<v1::CreateGroupResponse>(cluster, &asked.topic, "CreateGroup", &asked).await;
    // An offset without a log is one of somebody's; with the others the group begins at the start.
    if is_offset(asked.from.as_ref()) && parts.iter().any(|(_, part)| part.is_ok()) {
        for (member, part) in &mut parts {
            if part.as_ref().is_err_and(|status| is(status, Code::PositionOutOfRange)) {
                *part = member.ask("CreateGroup", &v1::CreateGroupRequest { from: None, ..asked.clone() }).await;
            }
        }
    }
    // If it is nobody's, the one that takes records now says what it could be.
    let taker = taker(cluster, &asked.topic, 0);
    parts.sort_by_key(|(member, _)| taker.as_ref().is_none_or(|taker| taker.name != member.name));
    first_or_error(parts)
}

/// Whether a position is an offset in whatever log.
fn is_offset(position: Option<&v1::Position>) -> bool {
    position
        .is_some_and(|position| position.log_id.is_empty() && matches!(position.at, Some(v1::position::At::Offset(_))))
}

async fn describe_group(cluster: &Arc<Cluster>, asked: &v1::DescribeGroupRequest) -> Reply<v1::DescribeGroupResponse> {
    find_topic(cluster, &asked.topic).await?;
    let parts = each::<v1::DescribeGroupResponse>(cluster, &asked.topic, "DescribeGroup", asked).await;
    let (mut group, mut failure) = (None, None);
    let mut partitions = Vec::new();
    let mut missing = missing(cluster);
    for (member, part) in parts {
        match part {
            Ok(part) => {
                group = group.or(part.group);
                partitions.extend(part.partitions.into_iter().map(|state| of_broker(state, &member)));
            }
            // It was not consumed from there yet.
            Err(status) if is(&status, Code::GroupNotFound) => failure = Some(status),
            Err(status) => {
                missing.insert(member.name.to_string());
                failure = Some(status);
            }
        }
    }
    if group.is_none() {
        return Err(failure.unwrap_or_else(|| cluster.all_away().into()));
    }
    order(cluster, &asked.topic, &mut partitions);
    Ok(v1::DescribeGroupResponse { group, partitions, missing_brokers: missing.into_iter().collect() })
}

fn of_broker(state: v1::GroupPartitionState, member: &Member) -> v1::GroupPartitionState {
    v1::GroupPartitionState { broker: member.name.to_string(), ..state }
}

/// As the entries of a described topic are: no empty ones but those of who takes records now, and that one first.
fn order(cluster: &Cluster, topic: &str, partitions: &mut Vec<v1::GroupPartitionState>) {
    let takers = Takers::of(cluster, topic);
    let taker = |state: &v1::GroupPartitionState| takers.is(state.partition, &state.broker);
    partitions.retain(|state| state.next_offset > 0 || state.lag > 0 || state.acked_end_offset > 0 || taker(state));
    partitions.sort_by_key(|state| (state.partition, !taker(state)));
}

async fn seek_group(cluster: &Arc<Cluster>, asked: &v1::SeekGroupRequest) -> Reply<v1::SeekGroupResponse> {
    let log_id = asked.to.as_ref().map(|to| to.log_id.clone()).unwrap_or_default();
    let mut partitions = Vec::new();
    if log_id.is_empty() {
        require_all(cluster, "SeekGroup").await?;
        let mut wishes: Vec<(Arc<Member>, v1::SeekGroupRequest)> =
            cluster.members().into_iter().map(|member| (member, asked.clone())).collect();
        if is_offset(asked.to.as_ref()) {
            // An offset without a log is one of the log that takes records now.
            let topic = find_topic(cluster, &asked.topic).await?;
            let count = topic.config.as_ref().and_then(|config| config.partitions).unwrap_or(0);
            let chosen: Vec<u32> =
                if asked.partitions.is_empty() { (0..count).collect() } else { asked.partitions.clone() };
            for (member, wish) in &mut wishes {
                let takes = |partition: &u32| {
                    // What does not exist is refused by whoever is asked.
                    taker(cluster, &asked.topic, *partition).is_none_or(|taker| taker.name == member.name)
                };
                wish.partitions = chosen.iter().copied().filter(takes).collect();
            }
            wishes.retain(|(_, wish)| !wish.partitions.is_empty());
        }
        let parts = wishes.iter().map(|(member, wish)| member.ask::<v1::SeekGroupResponse>("SeekGroup", wish));
        let mut nothing = None;
        for ((member, _), part) in wishes.iter().zip(join_all(parts).await) {
            match part {
                Ok(part) => partitions.extend(part.partitions.into_iter().map(|state| of_broker(state, member))),
                Err(status) if is(&status, Code::GroupNotFound) || is(&status, Code::TopicNotFound) => {
                    nothing = Some(status);
                }
                Err(status) => return Err(status),
            }
        }
        if let (true, Some(status)) = (partitions.is_empty(), nothing) {
            return Err(status);
        }
    } else {
        let member = holder(cluster, &asked.topic, &log_id).await?;
        let part: v1::SeekGroupResponse = member.ask("SeekGroup", asked).await?;
        partitions.extend(part.partitions.into_iter().map(|state| of_broker(state, &member)));
    }
    order(cluster, &asked.topic, &mut partitions);
    Ok(v1::SeekGroupResponse { partitions })
}

/// A page of all brokers' letters: in the order of the partitions, and in each of the brokers' names.
async fn list_dead_letters(cluster: &Arc<Cluster>, asked: v1::ListDeadLettersRequest) -> Reply<Vec<u8>> {
    let up = cluster.up_asked().await?;
    find_topic(cluster, &asked.topic).await?;
    let mut page = v1::ListDeadLettersResponse {
        missing_brokers: names(&cluster.missing()),
        ..v1::ListDeadLettersResponse::default()
    };
    let pages = join_all(up.iter().map(|member| {
        let part = letters_of(member, &asked);
        async move { member.ask::<v1::ListDeadLettersResponse>("ListDeadLetters", &part).await }
    }));
    let mut found: BTreeMap<Letters, v1::Delivery> = BTreeMap::new();
    // Where somebody has more than is found here.
    let mut end: Option<Letters> = None;
    for (member, part) in up.iter().zip(pages.await) {
        let part = match part {
            Ok(part) => part,
            Err(status) if is(&status, Code::TopicNotFound) => continue,
            Err(status) if is(&status, Code::Unavailable) => {
                page.missing_brokers.push(member.name.to_string());
                continue;
            }
            Err(status) => return Err(status),
        };
        page.total += part.total;
        for delivery in part.deliveries {
            let at =
                Letters { partition: delivery.partition, broker: member.name.clone(), offset: delivery.base_offset };
            found.insert(at, v1::Delivery { broker: member.name.to_string(), ..delivery });
        }
        if let Some(partition) = part.next_partition {
            let at = Letters { partition, broker: member.name.clone(), offset: part.next_offset };
            end = Some(end.map_or(at.clone(), |end| end.min(at)));
        }
    }
    let mut room = if asked.max_records == 0 { DEFAULT_LETTERS } else { asked.max_records as usize };
    for (at, delivery) in found {
        if end.as_ref().is_some_and(|end| at >= *end) {
            break;
        }
        if delivery.records.len() > room {
            end = Some(at);
            break;
        }
        room -= delivery.records.len();
        page.deliveries.push(delivery);
    }
    if let Some(end) = end {
        (page.next_partition, page.next_offset) = (Some(end.partition), end.offset);
        page.next_broker = end.broker.to_string();
    }
    Ok(page.encode_to_vec())
}

/// Letters of an answer that names no number, at most.
const DEFAULT_LETTERS: usize = 100;

/// A place among the letters of all brokers, in their order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Letters {
    partition: u32,
    broker: Arc<str>,
    offset: u64,
}

/// What is to be asked of one broker, where a page begins at a place of all.
fn letters_of(member: &Member, asked: &v1::ListDeadLettersRequest) -> v1::ListDeadLettersRequest {
    let mut part = v1::ListDeadLettersRequest { from_broker: String::new(), ..asked.clone() };
    if let Some(partition) = asked.from_partition.filter(|_| !asked.from_broker.is_empty()) {
        match (*member.name).cmp(&*asked.from_broker) {
            std::cmp::Ordering::Less => {
                (part.from_partition, part.from_offset) = (Some(partition.saturating_add(1)), 0);
            }
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => part.from_offset = 0,
        }
    }
    part
}

async fn redrive(
    cluster: &Arc<Cluster>,
    asked: v1::RedriveDeadLettersRequest,
) -> Reply<v1::RedriveDeadLettersResponse> {
    let chosen = if !asked.broker.is_empty() {
        vec![member_named(cluster, &asked.broker)?]
    } else if !asked.ranges.is_empty() {
        // Offsets are those of one log: of the one that takes records now, as all positions without a log.
        let taker = asked.partition.and_then(|partition| taker(cluster, &asked.topic, partition));
        vec![taker.or_else(|| cluster.up().into_iter().next()).ok_or_else(|| cluster.all_away())?]
    } else {
        require_all(cluster, "RedriveDeadLetters").await?;
        cluster.members()
    };
    let (mut redriven, mut nothing, mut answered) = (0, None, false);
    let part = v1::RedriveDeadLettersRequest { broker: String::new(), ..asked };
    for outcome in
        join_all(chosen.iter().map(|member| member.ask::<v1::RedriveDeadLettersResponse>("RedriveDeadLetters", &part)))
            .await
    {
        match outcome {
            Ok(answer) => {
                answered = true;
                redriven += answer.redriven;
            }
            Err(status) if is(&status, Code::TopicNotFound) => nothing = Some(status),
            Err(status) => return Err(status),
        }
    }
    match nothing {
        Some(status) if !answered => Err(status),
        _ => Ok(v1::RedriveDeadLettersResponse { redriven }),
    }
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
