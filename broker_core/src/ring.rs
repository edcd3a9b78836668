//! The consistent-hash ring: which node answers for a key, and which nodes stand in for it.
//!
//! Construction (written down in `docs/protocol.md`, held by `tests/vectors/ring.json`):
//!
//! - Hash: XXH3-64, seed 0. The ring is the u64 numbers in rising order; the lowest follows the highest.
//! - Points: node `N` of weight `w` has `max(1, floor(virtual_nodes * w + 0.5))` of them, in IEEE double arithmetic; point
//!   `i` (from 0) is the hash of the UTF-8 bytes of `N#i`, with `i` in decimal.
//! - Order: points rise by (hash, node name as bytes).
//! - Lookup: a key belongs to the node of the first point whose hash is at or above the key's; past the last point, to
//!   that of the first.
//! - Placing: partition `p` of topic `T` (in rising order of `p`) goes to the first node clockwise of the key `T/p` that
//!   holds fewer than `ceil((p + 1) * points of the node / points of all)` partitions of `T`.
//! - Health: a node that is marked unhealthy keeps its points and its places, and is walked past: what would be its own
//!   goes to the next healthy node clockwise of the same key, and comes back with its health. Where no node is healthy
//!   the marks are ignored (Envoy calls it panic routing): nothing better is known then.
//!
//! Invariants (tests: `tests/ring_model.rs`):
//!
//! - I1 Equal members (names, weights, `virtual_nodes`) give equal answers, in whatever order they came.
//! - I2 A node that is added only takes keys; one that is removed only gives its own away.
//! - I3 With equal weights no node holds more than `ceil(partitions / nodes)` partitions of a topic, and a topic that
//!   grows leaves the partitions it had where they were.
//! - I4 A node that becomes unhealthy only gives its own keys and partitions away; healthy again, it has exactly them.

use crate::partitioner::key_hash;
use thiserror::Error;

/// Virtual nodes of a node of weight 1, unless told otherwise.
pub const DEFAULT_VIRTUAL_NODES: u32 = 150;
/// Most points on one ring: 2^20, which are about 20 MiB.
pub const MAX_POINTS: u64 = 1 << 20;
/// Longest node name in bytes.
pub const MAX_NAME_BYTES: usize = 255;
/// Most partitions placed by one call.
pub const MAX_PARTITIONS: u32 = 65_536;

/// Why a ring refused its members or a question. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum RingError {
    /// A lookup on a ring without nodes.
    #[error("the ring has no nodes; add one before looking up keys")]
    Empty,
    /// The node is on the ring already.
    #[error("node {name:?} is on the ring already; remove it first to change its weight")]
    DuplicateNode {
        /// The node's name.
        name: String,
    },
    /// The node is not on the ring.
    #[error("node {name:?} is not on the ring; `nodes` lists those that are")]
    UnknownNode {
        /// The name asked for.
        name: String,
    },
    /// A name that is empty or too long.
    #[error("a node's name has 1 to {MAX_NAME_BYTES} bytes of UTF-8, this one has {bytes}: {shown:?}")]
    InvalidName {
        /// Length of the name in bytes.
        bytes: usize,
        /// The name's first characters.
        shown: String,
    },
    /// A weight that is not a positive finite number.
    #[error(
        "weight {weight} of node {name:?} is not a positive finite number; 1 is a node's usual share, 2 twice that"
    )]
    InvalidWeight {
        /// The node's name.
        name: String,
        /// The weight given.
        weight: f64,
    },
    /// A ring without virtual nodes.
    #[error("virtual_nodes is 0; give 1 or more ({DEFAULT_VIRTUAL_NODES} by default)")]
    NoVirtualNodes,
    /// More points than a ring may have.
    #[error(
        "the ring would have {points} points, at most {MAX_POINTS} are allowed; use fewer virtual nodes or smaller weights"
    )]
    TooManyPoints {
        /// Points of all nodes together.
        points: u64,
    },
    /// A preference list of no nodes.
    #[error("a preference list has 1 node or more, 0 were asked for")]
    NoPreferences,
    /// A partition count out of bounds.
    #[error("{partitions} partitions cannot be placed; a topic has 1 to {MAX_PARTITIONS}")]
    InvalidPartitions {
        /// The count given.
        partitions: u32,
    },
}

/// One member of the ring.
#[derive(Debug, Clone, PartialEq)]
pub struct RingNode {
    name: String,
    weight: f64,
    points: u32,
    healthy: bool,
}

impl RingNode {
    /// The name that the node's points are hashed from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its share relative to the others; 1 is usual.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// Points it has on the ring.
    pub fn points(&self) -> u32 {
        self.points
    }

    /// Whether lookups may answer with it; a new node is healthy.
    pub fn healthy(&self) -> bool {
        self.healthy
    }
}

/// A consistent-hash ring over named nodes. Lookups take no lock and allocate nothing.
#[derive(Debug, Clone)]
pub struct HashRing {
    virtual_nodes: u32,
    /// By name; a node's place here is the index that lookups answer with.
    nodes: Vec<RingNode>,
    points: Points,
    /// Whether some nodes are unhealthy, but not all: else marks need not be looked at.
    partly_healthy: bool,
}

impl HashRing {
    /// A ring without nodes.
    pub fn new(virtual_nodes: u32) -> Result<Self, RingError> {
        Self::with_nodes(virtual_nodes, std::iter::empty::<(String, f64)>())
    }

    /// A ring of these nodes and their weights; builds the points once, where `add_node` builds them each time.
    pub fn with_nodes<N: Into<String>>(
        virtual_nodes: u32,
        members: impl IntoIterator<Item = (N, f64)>,
    ) -> Result<Self, RingError> {
        if virtual_nodes == 0 {
            return Err(RingError::NoVirtualNodes);
        }
        let mut nodes = members
            .into_iter()
            .map(|(name, weight)| checked_node(virtual_nodes, name.into(), weight))
            .collect::<Result<Vec<_>, _>>()?;
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = nodes.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(RingError::DuplicateNode { name: pair[0].name.clone() });
        }
        let points = Points::of(&nodes)?;
        Ok(Self { virtual_nodes, nodes, points, partly_healthy: false })
    }

    /// Adds a node; it takes keys from the others, and no key moves between those.
    pub fn add_node(&mut self, name: &str, weight: f64) -> Result<(), RingError> {
        let Err(place) = self.position(name) else {
            return Err(RingError::DuplicateNode { name: name.to_owned() });
        };
        let mut nodes = self.nodes.clone();
        nodes.insert(place, checked_node(self.virtual_nodes, name.to_owned(), weight)?);
        self.points = Points::of(&nodes)?;
        self.set_nodes(nodes);
        Ok(())
    }

    /// Removes a node; only its keys move.
    pub fn remove_node(&mut self, name: &str) -> Result<(), RingError> {
        let place = self.position(name).map_err(|_| RingError::UnknownNode { name: name.to_owned() })?;
        let mut nodes = self.nodes.clone();
        nodes.remove(place);
        self.points = Points::of(&nodes)?;
        self.set_nodes(nodes);
        Ok(())
    }

    /// Marks a node: lookups walk past an unhealthy one, and no key or partition of another node moves.
    pub fn set_healthy(&mut self, name: &str, healthy: bool) -> Result<(), RingError> {
        let place = self.position(name).map_err(|_| RingError::UnknownNode { name: name.to_owned() })?;
        let mut nodes = std::mem::take(&mut self.nodes);
        nodes[place].healthy = healthy;
        self.set_nodes(nodes);
        Ok(())
    }

    fn set_nodes(&mut self, nodes: Vec<RingNode>) {
        let healthy = nodes.iter().filter(|node| node.healthy).count();
        self.partly_healthy = healthy > 0 && healthy < nodes.len();
        self.nodes = nodes;
    }

    /// Whether a lookup may answer with a node.
    #[inline]
    fn answers(&self, index: u32) -> bool {
        !self.partly_healthy || self.nodes[index as usize].healthy
    }

    /// The members, by name.
    pub fn nodes(&self) -> &[RingNode] {
        &self.nodes
    }

    /// Virtual nodes of a node of weight 1.
    pub fn virtual_nodes(&self) -> u32 {
        self.virtual_nodes
    }

    /// The node of a key.
    #[inline]
    pub fn node_for(&self, key: &[u8]) -> Result<&str, RingError> {
        Ok(&self.nodes[self.index_for(key)? as usize].name)
    }

    /// The node of a key, as an index into [`HashRing::nodes`].
    #[inline]
    pub fn index_for(&self, key: &[u8]) -> Result<u32, RingError> {
        let hash = key_hash(key);
        let owner = self.points.owner(hash).ok_or(RingError::Empty)?;
        if self.answers(owner) { Ok(owner) } else { self.stand_in(hash) }
    }

    /// The first healthy node clockwise.
    #[cold]
    fn stand_in(&self, hash: u64) -> Result<u32, RingError> {
        self.points.clockwise(hash).find(|&owner| self.answers(owner)).ok_or(RingError::Empty)
    }

    /// The nodes of many keys, as indexes into [`HashRing::nodes`], in the order of the keys.
    pub fn indexes_for<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) -> Result<Vec<u32>, RingError> {
        let keys = keys.into_iter();
        let mut indexes = Vec::with_capacity(keys.size_hint().0);
        for key in keys {
            indexes.push(self.index_for(key)?);
        }
        Ok(indexes)
    }

    /// The preference list of a key: up to `n` distinct nodes, the key's own first, the others clockwise from it.
    ///
    /// Shorter than `n` where the ring has fewer healthy nodes.
    pub fn nodes_for(&self, key: &[u8], n: usize) -> Result<Vec<&str>, RingError> {
        Ok(self.preference_for(key, n)?.into_iter().map(|index| self.nodes[index as usize].name.as_str()).collect())
    }

    /// The preference list of a key, as indexes into [`HashRing::nodes`].
    pub fn preference_for(&self, key: &[u8], n: usize) -> Result<Vec<u32>, RingError> {
        if n == 0 {
            return Err(RingError::NoPreferences);
        }
        if self.nodes.is_empty() {
            return Err(RingError::Empty);
        }
        let wanted = n.min(self.nodes.len());
        let mut seen = vec![false; self.nodes.len()];
        let mut preference = Vec::with_capacity(wanted);
        for owner in self.points.clockwise(key_hash(key)) {
            if self.answers(owner) && !std::mem::replace(&mut seen[owner as usize], true) {
                preference.push(owner);
                if preference.len() == wanted {
                    break;
                }
            }
        }
        Ok(preference)
    }

    /// Places the partitions of a topic: entry `p` is the node of partition `p`, as an index into [`HashRing::nodes`].
    ///
    /// With equal weights a node gets at most `ceil(partitions / nodes)`; otherwise at most its share of the points,
    /// rounded up. Where a partition goes does not depend on those after it, so a topic can grow in place. The partitions
    /// of an unhealthy node go to their next healthy nodes on top of that.
    pub fn place(&self, topic: &str, partitions: u32) -> Result<Vec<u32>, RingError> {
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            return Err(RingError::InvalidPartitions { partitions });
        }
        if self.nodes.is_empty() {
            return Err(RingError::Empty);
        }
        let all = self.points.len() as u64;
        let mut held = vec![0_u64; self.nodes.len()];
        let mut placed = Vec::with_capacity(partitions as usize);
        for partition in 0..partitions {
            let has_room = |node: u32| {
                let share = u64::from(partition + 1) * u64::from(self.nodes[node as usize].points);
                held[node as usize] < share.div_ceil(all)
            };
            // The shares sum to more than what is placed so far, so a node with room is always found.
            let hash = key_hash(format!("{topic}/{partition}").as_bytes());
            let node = self.points.clockwise(hash).find(|&node| has_room(node)).ok_or(RingError::Empty)?;
            held[node as usize] += 1;
            placed.push(if self.answers(node) { node } else { self.stand_in(hash)? });
        }
        Ok(placed)
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.nodes.binary_search_by(|node| node.name.as_str().cmp(name))
    }
}

impl Default for HashRing {
    fn default() -> Self {
        Self {
            virtual_nodes: DEFAULT_VIRTUAL_NODES,
            nodes: Vec::new(),
            points: Points::default(),
            partly_healthy: false,
        }
    }
}

fn checked_node(virtual_nodes: u32, name: String, weight: f64) -> Result<RingNode, RingError> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(RingError::InvalidName { bytes: name.len(), shown: name.chars().take(32).collect() });
    }
    if !(weight.is_finite() && weight > 0.0) {
        return Err(RingError::InvalidWeight { name, weight });
    }
    let points = (f64::from(virtual_nodes) * weight + 0.5).floor().max(1.0);
    // Float to integer casts saturate, so a huge weight stays huge here and is refused.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, positive, saturating")]
    let points = points as u64;
    match u32::try_from(points) {
        Ok(points) if u64::from(points) <= MAX_POINTS => Ok(RingNode { name, weight, points, healthy: true }),
        _ => Err(RingError::TooManyPoints { points }),
    }
}

/// The points in rising order, and a table that turns a hash's top bits into the place where the search begins.
///
/// There are at least twice as many table entries as points, so the search looks at less than two points on average, in
/// two cache lines. One entry past the last point repeats the first point's owner, so that the search needs no wrap.
#[derive(Debug, Clone, Default)]
struct Points {
    hashes: Vec<u64>,
    owners: Vec<u32>,
    /// Entry `b`: how many points have top bits below `b`.
    starts: Vec<u32>,
    shift: u32,
}

impl Points {
    fn of(nodes: &[RingNode]) -> Result<Self, RingError> {
        let count = nodes.iter().map(|node| u64::from(node.points)).sum::<u64>();
        if count > MAX_POINTS {
            return Err(RingError::TooManyPoints { points: count });
        }
        if count == 0 {
            return Ok(Self::default());
        }
        let mut points = Vec::new();
        for (owner, node) in (0_u32..).zip(nodes) {
            let mut label = format!("{}#", node.name);
            let stem = label.len();
            for i in 0..node.points {
                label.truncate(stem);
                label.push_str(&i.to_string());
                points.push((key_hash(label.as_bytes()), owner));
            }
        }
        // Nodes are in the order of their names, so equal hashes are too.
        points.sort_unstable();
        let bits = (2 * points.len()).next_power_of_two().trailing_zeros();
        let shift = u64::BITS - bits;
        let mut starts = Vec::with_capacity(1 << bits);
        let mut place = 0_u32;
        let mut rest = points.iter().peekable();
        for top in 0..1_u64 << bits {
            while rest.next_if(|point| point.0 >> shift < top).is_some() {
                place += 1;
            }
            starts.push(place);
        }
        let first_owner = points[0].1;
        let (mut hashes, mut owners): (Vec<u64>, Vec<u32>) = points.into_iter().unzip();
        hashes.push(u64::MAX);
        owners.push(first_owner);
        Ok(Self { hashes, owners, starts, shift })
    }

    fn len(&self) -> usize {
        self.hashes.len().saturating_sub(1)
    }

    /// The first point at or above the hash; `len()`, which stands for the first point of all, where there is none.
    #[inline]
    fn search(&self, hash: u64) -> Option<usize> {
        let mut place = *self.starts.get(usize::try_from(hash >> self.shift).ok()?)? as usize;
        while *self.hashes.get(place)? < hash {
            place += 1;
        }
        Some(place)
    }

    #[inline]
    fn owner(&self, hash: u64) -> Option<u32> {
        self.owners.get(self.search(hash)?).copied()
    }

    /// The owners of all points, once round, beginning at the hash's own.
    fn clockwise(&self, hash: u64) -> impl Iterator<Item = u32> {
        let owners = &self.owners[..self.len()];
        let start = self.search(hash).unwrap_or(0) % owners.len().max(1);
        owners[start..].iter().chain(&owners[..start]).copied()
    }
}
