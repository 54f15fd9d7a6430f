use std::future::{pending, ready};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::oneshot::{self, Receiver, Sender};

use super::{Hedge, LEAST, SAVED, SHORTEST, State, WINDOW, race};
use crate::error::{Error, ErrorKind, Result};
use crate::store::s3::ServiceReply;

const MS: Duration = Duration::from_millis(1);

fn known(times: impl IntoIterator<Item = u32>) -> State {
    let mut state = State::default();
    times.into_iter().for_each(|time| state.note(MS * time));
    state
}

#[test]
fn late_is_what_few_are() {
    assert_eq!(known(vec![100; LEAST - 1]).patience(), None, "too little is known");
    assert_eq!(known(1..=100).patience(), Some(MS * 96));
    assert_eq!(known(vec![1; 100]).patience(), Some(SHORTEST));
    // What was long ago does not count.
    let longer = vec![400; WINDOW];
    assert_eq!(known((1..=100).chain(longer)).patience(), Some(MS * 400));
}

#[test]
fn further_requests_are_a_small_share() {
    let mut state = State::default();
    let mut taken = 0_u32;
    for _ in 0..10_000 {
        state.note(MS);
        taken += u32::from(state.take());
    }
    assert!((450..=500).contains(&taken), "{taken} of 10000");
    let mut state = known(vec![1; 10_000]);
    let burst = (0..100).filter(|_| state.take()).count();
    assert_eq!(burst, SAVED as usize);
}

/// Requests whose answers the test gives.
#[derive(Default)]
struct Asked {
    answers: Mutex<Vec<Receiver<Result<u32>>>>,
    sent: AtomicUsize,
}

impl Asked {
    /// What is sent next gets its answer from here.
    fn expect(&self) -> Sender<Result<u32>> {
        let (sender, receiver) = oneshot::channel();
        self.answers.lock().unwrap().push(receiver);
        sender
    }

    async fn send(&self) -> Result<u32> {
        self.sent.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers.lock().unwrap().remove(0);
        answer.await.unwrap()
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn an_answer_in_time_is_the_only_one() {
    let asked = Asked::default();
    asked.expect().send(Ok(1)).unwrap();
    assert_eq!(race(|| asked.send(), pending(), || panic!("nobody asks")).await.unwrap(), 1);
    assert_eq!(asked.sent(), 1);
}

#[tokio::test]
async fn the_first_clear_answer_counts() {
    let lost = || Err(Error::unavailable("lost"));
    let absent = || Err(Error::not_found("absent"));
    // Answers of the first and the second request in this order; none: it never comes.
    type Answers = [Option<Result<u32>>; 2];
    let cases: [(Answers, Result<u32, ErrorKind>); 6] = [
        ([Some(Ok(1)), None], Ok(1)),
        ([None, Some(Ok(2))], Ok(2)),
        ([Some(lost()), Some(Ok(2))], Ok(2)),
        ([Some(lost()), Some(lost())], Err(ErrorKind::Unavailable)),
        ([None, Some(absent())], Err(ErrorKind::NotFound)),
        ([Some(absent()), None], Err(ErrorKind::NotFound)),
    ];
    for (answers, wanted) in cases {
        let asked = Asked::default();
        let senders = [asked.expect(), asked.expect()];
        // Late before the answers come: they are given once both requests are under way.
        let answering = async {
            while asked.sent() < 2 {
                tokio::task::yield_now().await;
            }
            let mut kept = Vec::new();
            for (sender, answer) in senders.into_iter().zip(answers) {
                match answer {
                    Some(answer) => sender.send(answer).unwrap(),
                    None => kept.push(sender),
                }
            }
            kept
        };
        let (answer, _kept) = tokio::join!(race(|| asked.send(), ready(()), || true), answering);
        assert_eq!(answer.map_err(|err| err.kind()), wanted);
        assert_eq!(asked.sent(), 2);
    }
}

#[tokio::test]
async fn without_budget_the_first_is_waited_for() {
    let asked = Asked::default();
    let sender = asked.expect();
    let answering = async {
        tokio::task::yield_now().await;
        sender.send(Ok(1)).unwrap();
    };
    let (answer, ()) = tokio::join!(race(|| asked.send(), ready(()), || false), answering);
    assert_eq!((answer.unwrap(), asked.sent()), (1, 1));
}

#[tokio::test]
async fn a_complaint_takes_the_budget_away() {
    let hedge = Hedge::new(true);
    for _ in 0..1000 {
        hedge.first_answer(|| ready(Ok(()))).await.unwrap();
    }
    assert!(hedge.state().tokens >= 1.0);
    let reply = || ServiceReply { status: 503, ..ServiceReply::default() };
    let complaint = || ready(Err::<(), _>(Error::unavailable("too much").with_source(reply())));
    hedge.first_answer(complaint).await.unwrap_err();
    assert!(!hedge.state().take());
}
