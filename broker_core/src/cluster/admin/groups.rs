//! Consumer groups, of which each broker keeps its own part.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;

use super::{Takers, each, find_topic, first_or_error, holder, missing, require_all, taker};
use crate::cluster::member::Member;
use crate::cluster::{Cluster, Reply, is};
use crate::error::Code;
use crate::wire::v1;

pub(super) async fn list_groups(
    cluster: &Arc<Cluster>,
    asked: &v1::ListGroupsRequest,
) -> Reply<v1::ListGroupsResponse> {
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

pub(super) async fn create_group(
    cluster: &Arc<Cluster>,
    asked: v1::CreateGroupRequest,
) -> Reply<v1::CreateGroupResponse> {
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

pub(super) async fn describe_group(
    cluster: &Arc<Cluster>,
    asked: &v1::DescribeGroupRequest,
) -> Reply<v1::DescribeGroupResponse> {
    find_topic(cluster, &asked.topic).await?;
    let parts = each::<v1::DescribeGroupResponse>(cluster, &asked.topic, "DescribeGroup", asked).await;
    let (mut group, mut failure) = (None, None);
    let mut partitions = Vec::new();
    let mut missing = missing(cluster);
    let mut without = Vec::new();
    for (member, part) in parts {
        match part {
            Ok(part) => {
                group = group.or(part.group);
                partitions.extend(part.partitions.into_iter().map(|state| of_broker(state, &member)));
            }
            Err(status) if is(&status, Code::GroupNotFound) => {
                without.push(member);
                failure = Some(status);
            }
            Err(status) => {
                missing.insert(member.name.to_string());
                failure = Some(status);
            }
        }
    }
    if group.is_none() {
        return Err(failure.unwrap_or_else(|| cluster.all_away().into()));
    }
    let topic = v1::DescribeTopicRequest { name: asked.topic.clone() };
    let described = without.iter().map(|member| member.ask::<v1::DescribeTopicResponse>("DescribeTopic", &topic));
    for (member, described) in without.iter().zip(join_all(described).await) {
        match described {
            Ok(described) => partitions.extend(described.partitions.into_iter().map(|state| not_begun(state, member))),
            Err(_) => drop(missing.insert(member.name.to_string())),
        }
    }
    order(cluster, &asked.topic, &mut partitions);
    Ok(v1::DescribeGroupResponse { group, partitions, missing_brokers: missing.into_iter().collect() })
}

/// A group where it has not begun yet: it will with the oldest record, as it does wherever it is made by its first consumer.
fn not_begun(state: v1::PartitionState, member: &Member) -> v1::GroupPartitionState {
    v1::GroupPartitionState {
        partition: state.partition,
        log_id: state.log_id,
        acked_end_offset: state.start_offset,
        next_offset: state.start_offset,
        lag: state.end_offset - state.start_offset,
        broker: member.name.to_string(),
        ..v1::GroupPartitionState::default()
    }
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

pub(super) async fn seek_group(cluster: &Arc<Cluster>, asked: &v1::SeekGroupRequest) -> Reply<v1::SeekGroupResponse> {
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
