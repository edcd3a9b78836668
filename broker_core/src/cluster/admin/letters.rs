//! Dead letters, each with the broker that keeps it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use prost::Message;

use super::{find_topic, member_named, names, require_all, taker};
use crate::cluster::member::Member;
use crate::cluster::{Cluster, Reply, is};
use crate::error::Code;
use crate::wire::v1;

/// A page of all brokers' letters: in the order of the partitions, and in each of the brokers' names.
pub(super) async fn list_dead_letters(cluster: &Arc<Cluster>, asked: v1::ListDeadLettersRequest) -> Reply<Vec<u8>> {
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

pub(super) async fn redrive(
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
