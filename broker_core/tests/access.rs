//! Who may do what, without a network: tokens, roles, patterns, limits.

#![cfg(feature = "grpc")]
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by failing")]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use broker_core::access::{Access, CALLS, Digest, Grant, Need, Pattern, Role, bearer, need_of};
use broker_core::error::Code;
use proptest::prelude::*;

const PRODUCE: &str = "/telemetry_broker.v1.BrokerService/Produce";

fn grant(client: &str, token: &str) -> Grant {
    Grant {
        client: client.to_owned(),
        digest: Digest::of(token),
        expires_s: None,
        produce: Vec::new(),
        consume: Vec::new(),
        admin: Vec::new(),
    }
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::parse(text).expect("a pattern")).collect()
}

fn access(grants: Vec<Grant>) -> Arc<Access> {
    let access = Access::new(100);
    access.replace(grants);
    access
}

fn code(result: broker_core::error::Result<impl Sized>) -> Option<Code> {
    result.err().map(|error| error.code())
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set").as_secs()
}

#[test]
fn only_a_known_token_comes_in_and_the_name_is_its_clients() {
    let access = access(vec![grant("a", "token-a"), grant("b", "token-b")]);
    assert_eq!(access.enter(Some("token-b")).unwrap().client(), "b");
    for wrong in [None, Some(""), Some("token-"), Some("token-ab"), Some("token-b ")] {
        assert_eq!(code(access.enter(wrong)), Some(Code::Unauthenticated), "{wrong:?}");
    }
    assert_eq!(access.refused.unauthenticated.load(Ordering::Relaxed), 5);
}

#[test]
fn an_expired_token_is_refused_and_its_message_shows_no_token() {
    let expires = |expires_s| Grant { expires_s: Some(expires_s), ..grant("a", "a-secret-token") };
    assert_eq!(code(access(vec![expires(now_s() + 60)]).enter(Some("a-secret-token"))), None);
    let error = access(vec![expires(now_s())]).enter(Some("a-secret-token")).err().unwrap();
    assert_eq!(error.code(), Code::Unauthenticated);
    assert!(error.message().contains("expired") && !error.message().contains("secret"), "{error}");
}

#[test]
fn a_role_reaches_as_far_as_its_patterns() {
    let roles = Grant { produce: patterns(&["telemetry", "events-*"]), ..grant("a", "t") };
    let access = access(vec![roles]);
    let caller = access.enter(Some("t")).unwrap();
    let produce = |topic: &str| caller.check(need_of(PRODUCE), "Produce", topic);
    for topic in ["telemetry", "events-", "events-x"] {
        assert!(produce(topic).is_ok(), "{topic}");
    }
    for topic in ["", "telemetry2", "Telemetry", "telemetry.dlq", "event", "events", "../telemetry", "x/telemetry", "*"]
    {
        assert_eq!(code(produce(topic)), Some(Code::Denied), "{topic}");
    }
    assert_eq!(code(caller.check(Need::Role(Role::Consume), "Receive", "telemetry")), Some(Code::Denied));
    assert!(caller.sees("telemetry") && !caller.sees("other"));
    let refusal = produce("other").unwrap_err();
    assert!(refusal.message().contains("`produce`") && refusal.message().contains("telemetry, events-*"), "{refusal}");
}

#[test]
fn what_is_not_in_the_table_needs_every_role_everywhere() {
    let everywhere = || patterns(&["*"]);
    let all = |client: &str, token: &str| Grant {
        produce: everywhere(),
        consume: everywhere(),
        admin: everywhere(),
        ..grant(client, token)
    };
    let but_one = Grant { consume: patterns(&["a*"]), ..all("most", "most") };
    let access = access(vec![all("all", "all"), but_one]);
    let unknown = need_of("/telemetry_broker.v1.BrokerService/Invented");
    assert_eq!(unknown, Need::Everything);
    assert!(access.enter(Some("all")).unwrap().check(unknown, "Invented", "").is_ok());
    assert_eq!(code(access.enter(Some("most")).unwrap().check(unknown, "Invented", "")), Some(Code::Denied));
    for (path, need) in CALLS {
        assert_eq!(need_of(path), *need);
        assert!(access.enter(Some("all")).unwrap().check(*need, path, "t").is_ok(), "{path}");
    }
}

#[test]
fn a_client_has_at_most_so_many_calls_under_way_and_others_do_not_notice() {
    let access = Access::new(2);
    access.replace(vec![grant("a", "a1"), grant("a", "a2"), grant("b", "b")]);
    let first = access.enter(Some("a1")).unwrap();
    let _second = access.enter(Some("a2")).unwrap();
    let refused = access.enter(Some("a1")).err().unwrap();
    assert_eq!((refused.code(), refused.retry_after().is_some()), (Code::LimitExceeded, true));
    assert_eq!(code(access.enter(Some("b"))), None);
    drop(first);
    assert_eq!(code(access.enter(Some("a1"))), None);
}

#[tokio::test]
async fn a_caller_hears_of_its_token_being_withdrawn_or_changed_and_of_nothing_else() {
    let access = access(vec![grant("a", "a"), grant("b", "b")]);
    let (a, b) = (access.enter(Some("a")).unwrap(), access.enter(Some("b")).unwrap());
    let mut of_a = Box::pin(a.changed());
    access.replace(vec![grant("c", "c"), grant("a", "a")]);
    b.changed().await;
    assert!(a.is_current() && !b.is_current());
    tokio::select! {
        biased;
        () = of_a.as_mut() => panic!("a's token is what it was"),
        () = std::future::ready(()) => {}
    }
    access.replace(vec![Grant { produce: patterns(&["*"]), ..grant("a", "a") }]);
    of_a.await;
    assert!(!a.is_current());
}

#[tokio::test]
async fn a_caller_hears_of_its_token_expiring() {
    let expires_s = now_s() + 1;
    let access = access(vec![Grant { expires_s: Some(expires_s), ..grant("a", "a") }]);
    access.enter(Some("a")).unwrap().changed().await;
    assert!(now_s() >= expires_s);
}

#[test]
fn a_bearer_is_a_scheme_and_a_token() {
    assert_eq!(bearer("Bearer abc"), Some("abc"));
    assert_eq!(bearer("bearer  abc "), Some("abc"));
    for wrong in ["", "abc", "Bearer", "Basic abc"] {
        assert_eq!(bearer(wrong), None, "{wrong}");
    }
}

proptest! {
    #[test]
    fn a_pattern_matches_as_it_reads(text in "[a-c.*/]{0,4}", topic in "[a-c.]{0,4}") {
        let stars = text.matches('*').count();
        let is_one = !text.is_empty() && !text.contains('/') && (stars == 0 || (stars == 1 && text.ends_with('*')));
        match Pattern::parse(&text) {
            Ok(pattern) => {
                prop_assert!(is_one);
                let expected = text.strip_suffix('*').map_or(topic == text, |beginning| topic.starts_with(beginning));
                prop_assert_eq!(pattern.matches(&topic), expected);
                prop_assert_eq!(pattern.to_string(), text);
            }
            Err(error) => prop_assert!(!is_one, "{}", error),
        }
    }
}
