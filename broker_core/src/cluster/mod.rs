//! Several brokers as one: who takes a partition's records, who is well, and calls that concern many.
//!
//! The same code serves in a proxy, behind its server, and in a client of several brokers, behind its channel: both hand
//! it encoded messages of `BrokerService` and get encoded messages back. Any number of clusters over the same members
//! agree without talking to each other, for all that they decide with is the ring.
//!
//! - A partition's records go to the broker that the ring places it at, by bounded load over the configured members; while
//!   that one is away or draining, to the next one on the partition's preference list ([`crate::ring`]).
//! - What was sent and not answered is sent nowhere else: its broker may have it. Whoever sent it is told whose it is.
//! - Consumers get the records of every broker, since any may hold some. Acks go to the broker that gave the lease.
//! - A topic is at all brokers. One that was away when a topic was made or configured gets it when it is back: the newest
//!   version of a configuration wins.
//!
//! Invariants (tests: `tests/cluster.rs`, and over real processes `tests/faults/test_brokers.py`)
//!
//! - C1 A batch is stored by at most one broker, unless its client says that it may be resent.
//! - C2 Records that a client has credit for are never more than it gave, whoever sends them.
//! - C3 What a client asks for on a stream is answered in its order, whoever answers.

mod admin;
pub mod breaker;
mod consume;
mod member;
mod produce;
mod settle;

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tonic::Status;

pub use self::member::{Counts, Known, Member};
use crate::error::{Code, Error, Result};
use crate::grpc::client::{Address, Credentials, Failure, Patience, Remote};
use crate::grpc::status::told;
use crate::ring::{DEFAULT_VIRTUAL_NODES, HashRing, MAX_PARTITIONS};
use crate::wire::v1;

/// Brokers, at most.
pub const MAX_MEMBERS: usize = 1000;
/// Things to tell that nobody has asked for yet, at most; older ones are dropped.
const MAX_EVENTS: usize = 1000;
/// Topics whose places are remembered.
const MAX_PLACEMENTS: usize = 10_000;
/// A broker that does not answer is noticed within the two of them, also one whose machine vanished or that was stopped.
const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(2),
    ping_interval: Duration::from_secs(1),
    ping_timeout: Duration::from_millis(1500),
};

/// What becomes of a call, or of a message of it.
pub type Reply<T> = std::result::Result<T, Status>;
/// Encoded messages, as they come.
pub type Messages = Pin<Box<dyn Stream<Item = Reply<Bytes>> + Send>>;
/// True once whoever serves is to end.
type Stopping = Option<watch::Receiver<bool>>;

/// Refuses a topic.
pub type Check = Arc<dyn Fn(&str) -> Result<()> + Send + Sync>;

/// For whom a stream is.
#[derive(Clone, Default)]
pub struct Client {
    /// True once whoever serves is to end; None: it ends with its client.
    pub stopping: Stopping,
    /// Refuses a topic that the client may not use in this way; None: it may use all.
    pub check: Option<Check>,
}

impl Client {
    fn check(&self, topic: &str) -> Result<()> {
        self.check.as_ref().map_or(Ok(()), |check| check(topic))
    }
}

/// What a cluster is told once and for all.
#[derive(Clone)]
pub struct Options {
    /// Of a broker on the ring.
    pub virtual_nodes: u32,
    /// What it shows to the brokers.
    pub credentials: Credentials,
    /// How often each broker's topics are listed anew.
    pub refresh: Duration,
    /// The members that the brokers themselves know of are taken over.
    pub follow: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            virtual_nodes: DEFAULT_VIRTUAL_NODES,
            credentials: Credentials::default(),
            refresh: Duration::from_secs(30),
            follow: false,
        }
    }
}

/// Something that an operator may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// It is nothing to be content with.
    pub is_warning: bool,
    /// What happened.
    pub text: String,
}

/// The members of now, and where things are with them.
struct Members {
    ring: HashRing,
    /// In the order of the ring's nodes, which is that of their names.
    list: Vec<Arc<Member>>,
    tasks: HashMap<Arc<str>, AbortHandle>,
    /// For each topic, the index of the member that each partition is placed at.
    placements: Mutex<HashMap<String, Arc<[u32]>>>,
}

/// Several brokers as one. It ends with its last copy.
pub struct Cluster {
    options: Options,
    handle: Handle,
    members: RwLock<Arc<Members>>,
    /// Changes whenever a member comes, goes, or is found well or away.
    changes: watch::Sender<u64>,
    events: Mutex<VecDeque<Event>>,
    /// Who is asked first where it does not matter.
    turn: AtomicU32,
    /// Partitions whose records go elsewhere than they are placed, so that it is told once.
    astray: Mutex<HashMap<(String, u32), Arc<str>>>,
    /// The id that each broker had, by name: another one is another folder.
    ids: Mutex<HashMap<Arc<str>, Vec<u8>>>,
}

/// Refuses members that cannot be: none, too many, one twice, one without an address.
pub fn check(members: &[(String, String)], options: &Options) -> Result<()> {
    let invalid = |message: String| Err(Error::new(Code::InvalidArgument, message));
    if members.is_empty() || members.len() > MAX_MEMBERS {
        return invalid(format!("{} brokers are given: expected 1 to {MAX_MEMBERS}", members.len()));
    }
    let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
    for (name, address) in members {
        if !names.insert(name) {
            return invalid(format!("broker {name:?} is given twice: give each one once"));
        }
        if !addresses.insert(address) {
            return invalid(format!("two brokers are given at {address:?}: give each one once"));
        }
        Address::new(address, options.credentials.clone(), PATIENCE)?;
    }
    ring_of(members, options).map(|_| ())
}

fn ring_of(members: &[(String, String)], options: &Options) -> Result<HashRing> {
    HashRing::with_nodes(options.virtual_nodes, members.iter().map(|(name, _)| (name.as_str(), 1.0)))
        .map_err(|err| Error::new(Code::InvalidArgument, err.to_string()))
}

impl Cluster {
    /// That of these members, names and addresses. What it does by itself is done on the runtime of `handle`.
    pub fn new(members: &[(String, String)], options: Options, handle: &Handle) -> Result<Arc<Self>> {
        let none = Members {
            ring: HashRing::default(),
            list: Vec::new(),
            tasks: HashMap::new(),
            placements: Mutex::default(),
        };
        let cluster = Arc::new(Self {
            options,
            handle: handle.clone(),
            members: RwLock::new(Arc::new(none)),
            changes: watch::channel(0).0,
            events: Mutex::default(),
            turn: AtomicU32::new(0),
            astray: Mutex::default(),
            ids: Mutex::default(),
        });
        cluster.set_members(members)?;
        Ok(cluster)
    }

    /// From here on these are the members. Those that stay keep their connections; what is under way at one that goes is
    /// answered as far as it can be.
    pub fn set_members(self: &Arc<Self>, members: &[(String, String)]) -> Result<()> {
        check(members, &self.options)?;
        let ring = ring_of(members, &self.options)?;
        let addresses: HashMap<&str, &str> =
            members.iter().map(|(name, address)| (name.as_str(), address.as_str())).collect();
        let mut now = self.members.write();
        let (mut list, mut tasks) = (Vec::new(), HashMap::new());
        for node in ring.nodes() {
            let address = addresses.get(node.name()).copied().unwrap_or_default();
            let known = now.list.iter().find(|member| *member.name == *node.name() && member.address == address);
            let member = match known {
                Some(member) => member.clone(),
                None => Arc::new(self.new_member(node.name(), address)?),
            };
            let task = match now.tasks.get(&member.name).filter(|_| known.is_some()) {
                Some(task) => task.clone(),
                None => self.handle.spawn(live(member.clone(), Arc::downgrade(self))).abort_handle(),
            };
            tasks.insert(member.name.clone(), task);
            list.push(member);
        }
        for gone in now.list.iter().filter(|member| !list.iter().any(|stays| Arc::ptr_eq(stays, member))) {
            if let Some(task) = now.tasks.get(&gone.name) {
                task.abort();
            }
            gone.open("it is no member any more".to_owned(), 0.0);
        }
        *now = Arc::new(Members { ring, list, tasks, placements: Mutex::default() });
        drop(now);
        self.changed();
        Ok(())
    }

    fn new_member(&self, name: &str, address: &str) -> Result<Member> {
        let at = Address::new(address, self.options.credentials.clone(), PATIENCE)?;
        let _inside = self.handle.enter();
        Ok(Member::new(name, address, Remote::new(at)))
    }

    /// The runtime that it lives on.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The members, by name.
    pub fn members(&self) -> Vec<Arc<Member>> {
        self.members.read().list.clone()
    }

    /// What happened since it was asked last.
    pub fn take_events(&self) -> Vec<Event> {
        self.events.lock().drain(..).collect()
    }

    /// For each topic that is known, the names of the brokers that its partitions are placed at.
    pub fn placement(&self) -> Vec<(String, Vec<Arc<str>>)> {
        let members = self.members.read().clone();
        let mut topics: Vec<v1::Topic> = self.topics().into_values().collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        let placed = topics.into_iter().map(|topic| {
            let partitions = topic.config.as_ref().and_then(|config| config.partitions).unwrap_or(0);
            let places = members.places(&topic.name, partitions.max(1));
            let names = places.iter().take(partitions as usize).map(|&index| members.list[index as usize].name.clone());
            (topic.name, names.collect())
        });
        placed.collect()
    }

    /// Answers a call of `BrokerService`: encoded requests in, encoded answers out. A stream ends when it is dropped.
    pub async fn call(self: Arc<Self>, method: &str, mut requests: Messages, client: Client) -> Reply<Messages> {
        match method {
            "ProduceStream" | "Consume" => Ok(self.stream(method, requests, client)),
            _ => {
                let Some(request) = requests.next().await.transpose()? else {
                    return Err(Status::internal(format!("{method} takes one message, and none came")));
                };
                let answer = self.unary(method, request).await?;
                Ok(Box::pin(futures_util::stream::once(std::future::ready(Ok(answer)))))
            }
        }
    }

    /// Answers a `ProduceStream` or a `Consume`. To be called inside of a runtime.
    pub fn stream(self: Arc<Self>, method: &str, requests: Messages, client: Client) -> Messages {
        match method {
            "Consume" => consume::stream(self, requests, client),
            _ => produce::stream(self, requests, client),
        }
    }

    /// Runs a unary call that its caller may make. What it waits for ends when it is dropped.
    pub async fn unary(self: &Arc<Self>, method: &str, request: Bytes) -> Reply<Bytes> {
        match method {
            "Produce" => produce::one(self, request).await,
            "Receive" => settle::receive(self, request).await,
            "Ack" | "Nack" | "Extend" => settle::settle(self, method, request).await,
            _ => admin::call(self, method, request).await,
        }
    }

    /// Members that are well, beginning with another one each time.
    fn up(&self) -> Vec<Arc<Member>> {
        let mut up: Vec<Arc<Member>> =
            self.members.read().list.iter().filter(|member| member.is_up()).cloned().collect();
        if !up.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) as usize % up.len();
            up.rotate_left(turn);
        }
        up
    }

    /// As `up`; while there is none, it waits a little.
    async fn up_soon(&self) -> Reply<Vec<Arc<Member>>> {
        let up = self.up();
        if !up.is_empty() {
            return Ok(up);
        }
        self.soon(|| !self.up().is_empty()).await;
        let up = self.up();
        if up.is_empty() { Err(self.all_away().into()) } else { Ok(up) }
    }

    /// As `up_soon`, once each member was asked: for what concerns all.
    async fn up_asked(&self) -> Reply<Vec<Arc<Member>>> {
        let is_asked = |member: &Arc<Member>| member.is_up() || !member.known().error.is_empty();
        self.soon(|| self.members.read().list.iter().all(is_asked)).await;
        self.up_soon().await
    }

    /// Waits until something holds, for as long as a broker has to answer; those that are away are tried at once.
    async fn soon(&self, holds: impl Fn() -> bool) {
        let mut changes = self.changes.subscribe();
        let limit = sleep(PATIENCE.connect);
        tokio::pin!(limit);
        loop {
            changes.mark_unchanged();
            if holds() {
                return;
            }
            for member in self.missing() {
                member.try_now();
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = limit.as_mut() => return,
            }
        }
    }

    /// What is answered while no broker is well.
    fn all_away(&self) -> Error {
        let members = self.members.read().clone();
        let why = members.list.first().map_or_else(String::new, |member| {
            format!("; {} ({}): {}", member.name, member.address, member.known().error)
        });
        let message = format!("none of the {} brokers can be reached{why}", members.list.len());
        Error::new(Code::Unavailable, message).retry_after_ms(member::AWAY_RETRY_MS)
    }

    /// Members that are away.
    fn missing(&self) -> Vec<Arc<Member>> {
        self.members.read().list.iter().filter(|member| !member.is_up()).cloned().collect()
    }

    fn named(&self, name: &str) -> Option<Arc<Member>> {
        self.members.read().list.iter().find(|member| *member.name == *name).cloned()
    }

    /// The member with a broker id.
    fn with_id(&self, broker_id: &[u8]) -> Option<Arc<Member>> {
        self.members.read().list.iter().find(|member| member.has_id(broker_id)).cloned()
    }

    /// Topics as the members have them, each in its newest version.
    fn topics(&self) -> HashMap<String, v1::Topic> {
        let mut newest: HashMap<String, v1::Topic> = HashMap::new();
        for member in &self.members.read().list {
            for topic in member.topics() {
                let version = topic.config_version;
                if newest.get(&topic.name).is_none_or(|known| known.config_version < version) {
                    newest.insert(topic.name.clone(), topic);
                }
            }
        }
        newest
    }

    /// A topic in its newest version, as far as it is known.
    fn topic(&self, name: &str) -> Option<v1::Topic> {
        let members = self.members.read().clone();
        members.list.iter().filter_map(|member| member.topic(name)).max_by_key(|topic| topic.config_version)
    }

    /// The members that a partition's records may go to, the one that it is placed at first.
    fn preference(&self, topic: &str, partition: u32) -> Vec<Arc<Member>> {
        let members = self.members.read().clone();
        let Some(&first) = members.places(topic, partition.saturating_add(1)).get(partition as usize) else {
            return Vec::new();
        };
        let key = format!("{topic}/{partition}");
        let all = members.ring.preference_for(key.as_bytes(), members.list.len()).unwrap_or_default();
        let order = std::iter::once(first).chain(all.into_iter().filter(|&index| index != first));
        order.map(|index| members.list[index as usize].clone()).collect()
    }

    /// The member that a partition is placed at.
    fn placed_at(&self, topic: &str, partition: u32) -> Option<Arc<Member>> {
        let members = self.members.read().clone();
        let index = *members.places(topic, partition.saturating_add(1)).get(partition as usize)?;
        members.list.get(index as usize).cloned()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn say(&self, is_warning: bool, text: String) {
        let mut events = self.events.lock();
        if events.len() == MAX_EVENTS {
            events.pop_front();
        }
        events.push_back(Event { is_warning, text });
    }

    /// Tells where a partition's records go, when that changes.
    fn note_route(&self, topic: &str, partition: u32, placed: &Member, taken: &Member) {
        let mut astray = self.astray.lock();
        if placed.name == taken.name {
            if !astray.is_empty() && astray.remove(&(topic.to_owned(), partition)).is_some() {
                drop(astray);
                self.say(false, format!("records of {topic}/{partition} go to {} again", taken.name));
            }
            return;
        }
        let before = astray.insert((topic.to_owned(), partition), taken.name.clone());
        if before.as_ref() != Some(&taken.name) {
            drop(astray);
            self.say(
                true,
                format!(
                    "records of {topic}/{partition} go to {} while {} takes none: in a group their order holds for each \
                     broker alone",
                    taken.name, placed.name
                ),
            );
        }
    }

    /// Takes over the members that a broker knows of, if they are others.
    fn follow(self: &Arc<Self>, told: &[(String, String)]) {
        if !self.options.follow || told.is_empty() {
            return;
        }
        let mut now: Vec<(String, String)> =
            self.members().iter().map(|member| (member.name.to_string(), member.address.clone())).collect();
        let mut told = told.to_vec();
        now.sort();
        told.sort();
        if now != told
            && let Err(error) = self.set_members(&told)
        {
            self.say(true, format!("the brokers know of members that cannot be: {}", error.message()));
        }
    }

    /// A member was found well.
    async fn came_up(self: Arc<Self>, member: Arc<Member>, known: Known) {
        let before = self.ids.lock().insert(member.name.clone(), known.broker_id.clone());
        if before.is_some_and(|before| before != known.broker_id) {
            self.say(
                true,
                format!(
                    "broker {} came back with another data folder: what it held before is gone, unless that folder \
                     comes back, too",
                    member.name
                ),
            );
        }
        let twin = self.members().into_iter().find(|other| {
            !Arc::ptr_eq(other, &member) && !known.broker_id.is_empty() && other.has_id(&known.broker_id)
        });
        if let Some(twin) = twin {
            self.say(
                true,
                format!(
                    "brokers {} ({}) and {} ({}) answer as one and the same broker: give each one a folder and an address \
                     of its own",
                    member.name, member.address, twin.name, twin.address
                ),
            );
        }
        self.say(false, format!("broker {} ({}) is well", member.name, member.address));
        self.changed();
        admin::reconcile(&self, &member).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for task in self.members.get_mut().tasks.values() {
            task.abort();
        }
    }
}

impl Members {
    /// The members that at least so many partitions of a topic are placed at.
    fn places(&self, topic: &str, partitions: u32) -> Arc<[u32]> {
        if partitions > MAX_PARTITIONS {
            return Arc::new([]);
        }
        let mut placements = self.placements.lock();
        if let Some(places) = placements.get(topic).filter(|places| places.len() >= partitions as usize) {
            return places.clone();
        }
        if placements.len() >= MAX_PLACEMENTS {
            placements.clear();
        }
        // Where a partition goes does not depend on those after it, so that some more cost nothing but time.
        let places: Arc<[u32]> = self.ring.place(topic, partitions.next_power_of_two()).unwrap_or_default().into();
        placements.insert(topic.to_owned(), places.clone());
        places
    }
}

/// Returns once whoever serves is to end.
async fn stopped(stopping: &mut Stopping) {
    match stopping {
        Some(stopping) => {
            let _ = stopping.wait_for(|stopping| *stopping).await; // a server that is gone has stopped
        }
        None => std::future::pending().await,
    }
}

/// Whether a failure has this code.
fn is(status: &Status, code: Code) -> bool {
    Failure::of(status).code.as_deref() == Some(code.as_str())
}

/// A failure as an error inside of a stream that goes on.
fn error_of(status: &Status) -> v1::Error {
    let failure = Failure::of(status);
    let code = failure.code.unwrap_or_else(|| match failure.status {
        tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => {
            Code::Unavailable.as_str().to_owned()
        }
        _ => Code::Internal.as_str().to_owned(),
    });
    let delay = failure.retry_after.map_or(0.0, |delay| (delay * 1000.0).clamp(0.0, f64::from(u32::MAX)));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was bounded")]
    let retry_after_ms = delay as u32;
    v1::Error {
        code,
        message: failure.message,
        retry_after_ms,
        field: failure.field.unwrap_or_default(),
        broker: String::new(),
    }
}

/// An error inside of a stream as that of a call.
fn failed_call(error: &v1::Error) -> Status {
    let mut of_call = Error::new(Code::of(&error.code).unwrap_or(Code::Internal), error.message.clone());
    if error.retry_after_ms > 0 {
        of_call = of_call.retry_after_ms(error.retry_after_ms);
    }
    told(&of_call, &error.field, &error.broker)
}

/// Watches one member for as long as the cluster is there.
async fn live(member: Arc<Member>, cluster: std::sync::Weak<Cluster>) {
    loop {
        let Some(refresh) = cluster.upgrade().map(|cluster| cluster.options.refresh) else { return };
        let came_up = |known| {
            let (cluster, member) = (cluster.clone(), member.clone());
            async move {
                if let Some(cluster) = cluster.upgrade() {
                    cluster.came_up(member, known).await;
                }
            }
        };
        let looked = |told: &[(String, String)]| {
            if let Some(cluster) = cluster.upgrade() {
                cluster.follow(told);
            }
        };
        let why = member.probe(refresh, came_up, looked).await;
        let Some(cluster) = cluster.upgrade() else { return };
        let (was_up, pause) = member.open(why.clone(), random());
        if was_up {
            cluster.say(true, format!("broker {} ({}) is away: {why}", member.name, member.address));
        }
        cluster.changed();
        drop(cluster);
        member.pause(pause).await;
    }
}

/// From 0 to 1.
fn random() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}
