//! Topics: the newest version of each, wherever it is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use tonic::Status;

use super::{Takers, each, missing};
use crate::cluster::member::Member;
use crate::cluster::{Cluster, Reply, is};
use crate::error::Code;
use crate::wire::v1;

/// A topic in its newest version: as it was listed last, or by asking.
pub(in crate::cluster) async fn find_topic(cluster: &Arc<Cluster>, name: &str) -> Reply<v1::Topic> {
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
pub(in crate::cluster) async fn bring_topic(cluster: &Arc<Cluster>, member: &Arc<Member>, name: &str) -> bool {
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
pub(in crate::cluster) async fn reconcile(cluster: &Arc<Cluster>, came: &Arc<Member>) {
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

pub(super) async fn create_topic(
    cluster: &Arc<Cluster>,
    asked: &v1::CreateTopicRequest,
) -> Reply<v1::CreateTopicResponse> {
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

pub(super) async fn configure_topic(
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

pub(super) async fn list_topics(
    cluster: &Arc<Cluster>,
    asked: &v1::ListTopicsRequest,
) -> Reply<v1::ListTopicsResponse> {
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

pub(super) async fn describe_topic(
    cluster: &Arc<Cluster>,
    asked: &v1::DescribeTopicRequest,
) -> Reply<v1::DescribeTopicResponse> {
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
