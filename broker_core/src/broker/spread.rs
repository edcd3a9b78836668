//! How the partitions of an ordered group are spread over its consumers: evenly, and each where it was.
//!
//! A consumer counts while it waits for records (as long as it said, and a second more) or has some in flight. Each has a
//! quota: the partitions divided by the consumers, the remainder going to the first by name. A consumer is served from
//! the partitions it owns; it claims free ones up to its quota. What somebody owns above it is surplus, idle partitions
//! first: an idle one is free at once, of one with records in flight its owner gets no more, so that it becomes idle
//! when these are acked or expire, however busy its owner is. Who owns a partition only decides who is asked first: that
//! two never hold records of one partition is the queue's promise, not this one's.
//!
//! Nobody has surplus once all own their quota, and nothing moves then.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What a consumer may take from.
#[derive(Debug, PartialEq, Eq)]
pub struct Share {
    /// Partitions it is served from.
    pub own: Vec<u32>,
    /// Whether some became free that it did not claim: others should look again.
    pub gave_up: bool,
    /// When another consumer stops counting, if it says nothing until then.
    pub next_change_ns: Option<u64>,
}

/// The consumers of one ordered group and what they own.
#[derive(Debug, Default)]
pub struct Spread {
    /// Until when each counts.
    consumers: BTreeMap<Arc<str>, u64>,
    owners: BTreeMap<u32, Arc<str>>,
}

impl Spread {
    /// Notes that a consumer asks for records and counts until `until_ns`, and says what it may take from.
    ///
    /// `holders`: for each partition, who has records of it in flight; empty: nobody.
    pub fn share(&mut self, consumer: &Arc<str>, now_ns: u64, until_ns: u64, holders: &[(u32, String)]) -> Share {
        self.consumers.retain(|name, until| *until > now_ns || holders.iter().any(|(_, holder)| **holder == **name));
        self.consumers.insert(consumer.clone(), until_ns);
        let consumers = &self.consumers;
        self.owners.retain(|_, owner| consumers.contains_key(owner));
        for (partition, holder) in holders.iter().filter(|(_, holder)| !holder.is_empty()) {
            // Who has records in flight owns the partition, whatever was thought before.
            if let Some((name, _)) = consumers.get_key_value(holder.as_str()) {
                self.owners.insert(*partition, name.clone());
            }
        }
        let quota = |rank: usize| holders.len() / consumers.len() + usize::from(rank < holders.len() % consumers.len());
        let (mut withheld, mut freed) = (Vec::new(), Vec::new());
        for (rank, name) in consumers.keys().enumerate() {
            let owned = holders.iter().filter(|(partition, _)| self.owners.get(partition) == Some(name));
            let (idle, busy): (Vec<_>, Vec<_>) = owned.partition(|(_, holder)| holder.is_empty());
            let surplus = (idle.len() + busy.len()).saturating_sub(quota(rank));
            for (partition, holder) in idle.into_iter().chain(busy).take(surplus) {
                if holder.is_empty() {
                    self.owners.remove(partition);
                    freed.push(*partition);
                } else if name == consumer {
                    withheld.push(*partition);
                }
            }
        }
        let quota = consumers.keys().position(|name| name == consumer).map_or(0, quota);
        let owned = self.owners.iter().filter(|(_, owner)| *owner == consumer).map(|(&partition, _)| partition);
        let mut own: Vec<u32> = owned.filter(|partition| !withheld.contains(partition)).collect();
        let partitions = holders.iter().map(|(partition, _)| *partition);
        let free = partitions.filter(|partition| !self.owners.contains_key(partition));
        let claimed: Vec<u32> = free.take(quota.saturating_sub(own.len() + withheld.len())).collect();
        for &partition in &claimed {
            self.owners.insert(partition, consumer.clone());
        }
        let gave_up = freed.iter().any(|partition| !claimed.contains(partition));
        own.extend(claimed);
        let others = self.consumers.iter().filter(|(name, until)| *name != consumer && **until > now_ns);
        Share { own, gave_up, next_change_ns: others.map(|(_, &until)| until).min() }
    }

    /// Forgets a consumer that has left; says whether it was known.
    pub fn leave(&mut self, consumer: &str) -> bool {
        let was_there = self.consumers.remove(consumer).is_some();
        self.owners.retain(|_, owner| **owner != *consumer);
        was_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(partitions: u32) -> Vec<(u32, String)> {
        (0..partitions).map(|partition| (partition, String::new())).collect()
    }

    fn settle(spread: &mut Spread, names: &[&str], partitions: u32) -> Vec<usize> {
        let mut shares = vec![0; names.len()];
        // Each asks a few times: what one gives up another claims the next time.
        for _ in 0..3 {
            for (index, name) in names.iter().enumerate() {
                shares[index] = spread.share(&(*name).into(), 0, 10, &idle(partitions)).own.len();
            }
        }
        shares
    }

    #[test]
    fn partitions_are_spread_evenly_over_those_who_wait() {
        let mut spread = Spread::default();
        assert_eq!(settle(&mut spread, &["a"], 4), [4]);
        assert_eq!(settle(&mut spread, &["a", "b"], 4), [2, 2]);
        assert_eq!(settle(&mut spread, &["a", "b", "c"], 4), [2, 1, 1]);
        assert_eq!(settle(&mut spread, &["a", "b", "c", "d", "e"], 4), [1, 1, 1, 1, 0]);
        spread.leave("b");
        assert_eq!(settle(&mut spread, &["a", "c", "d", "e"], 4), [1, 1, 1, 1]);
        for name in ["c", "d", "e"] {
            spread.leave(name);
        }
        assert_eq!(settle(&mut spread, &["a"], 4), [4]);
    }

    #[test]
    fn a_consumer_keeps_what_it_has_while_nothing_changes() {
        let mut spread = Spread::default();
        settle(&mut spread, &["a", "b"], 6);
        let before = spread.owners.clone();
        settle(&mut spread, &["b", "a"], 6);
        assert_eq!(spread.owners, before);
    }

    #[test]
    fn whoever_neither_waits_nor_holds_records_counts_no_more() {
        let mut spread = Spread::default();
        settle(&mut spread, &["a", "b"], 2);
        assert_eq!(spread.share(&"a".into(), 9, 20, &idle(2)).own.len(), 1);
        assert_eq!(spread.share(&"a".into(), 10, 20, &idle(2)).own.len(), 2);
    }

    #[test]
    fn one_who_always_has_records_in_flight_keeps_no_more_than_its_share() {
        let mut spread = Spread::default();
        let busy = |names: [&str; 4]| (0..).zip(names.map(str::to_owned)).collect::<Vec<(u32, String)>>();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let all = busy(["a", "a", "a", "a"]);
        assert_eq!(spread.share(&a, 0, 10, &all).own, [0, 1, 2, 3], "alone");
        assert_eq!(spread.share(&b, 0, 10, &all).own, [0; 0]);
        assert_eq!(spread.share(&a, 0, 10, &all).own, [2, 3], "nothing more of what is surplus");
        // One that it would have kept becomes idle first: that one moves, and what it is left with is its share again.
        let some = busy(["a", "a", "", "a"]);
        let share = spread.share(&b, 0, 10, &some);
        assert_eq!((share.own, share.gave_up), (vec![2], false));
        assert_eq!(spread.share(&a, 0, 10, &busy(["a", "a", "b", "a"])).own, [1, 3]);
        assert_eq!(spread.share(&b, 0, 10, &busy(["", "a", "b", "a"])).own, [2, 0]);
        let settled = busy(["b", "a", "b", "a"]);
        for _ in 0..3 {
            assert_eq!(spread.share(&a, 0, 10, &settled).own, [1, 3]);
            assert_eq!(spread.share(&b, 0, 10, &settled).own, [0, 2]);
        }
    }

    #[test]
    fn what_nobody_claims_is_told_of_once() {
        let mut spread = Spread::default();
        let busy: Vec<(u32, String)> = (0..4).map(|partition| (partition, "a".to_owned())).collect();
        spread.share(&"a".into(), 0, 10, &busy);
        spread.share(&"b".into(), 0, 10, &busy);
        assert!(spread.share(&"a".into(), 0, 10, &idle(4)).gave_up);
        assert!(!spread.share(&"a".into(), 0, 10, &idle(4)).gave_up, "or it would wake itself for ever");
    }

    #[test]
    fn records_in_flight_keep_their_partition_until_they_are_settled() {
        let mut spread = Spread::default();
        let busy = [(0, "a".to_owned()), (1, "a".to_owned())];
        assert_eq!(spread.share(&"a".into(), 0, 0, &busy).own, [0, 1]);
        let share = spread.share(&"b".into(), 5, 10, &busy);
        assert_eq!(share.own, [0; 0]);
        assert!(!spread.share(&"a".into(), 5, 5, &busy).gave_up);
        let share = spread.share(&"a".into(), 6, 10, &[(0, String::new()), (1, "a".to_owned())]);
        assert_eq!((share.own, share.gave_up), (vec![1], true));
        assert_eq!(spread.share(&"b".into(), 6, 10, &[(0, String::new()), (1, "a".to_owned())]).own, [0]);
    }
}
