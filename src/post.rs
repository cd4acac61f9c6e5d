//! A sender between two actors of the control path: messages wait, in order and within a limit,
//! while the receiver's mailbox is full.
//!
//! An actor calls [`Post::resend`] from the timer of [`shell::resend_later`](crate::shell); the
//! supervisor has an interval of its own. Each link says what happens at the limit: the owner
//! makes the receiver whole in another way ([`Post::take_overflow`]), or the oldest message goes.
//! A receiver that has died gets nothing: its successor is built from the ledger.

use crate::config::UseSettings;
use crate::messages::control::Control;
use actix::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

impl Control for UseSettings {
    /// Keeps the settings that the receiver knows: it compares them with the latest.
    fn replaces(&self, _: &Self) -> bool {
        false
    }
}

/// Sends to one receiver.
pub struct Post<M: Control> {
    to: Recipient<M>,
    waiting: RefCell<VecDeque<M>>,
    limit: usize,
    at_limit: AtLimit,
    has_overflowed: Cell<bool>,
}

/// What happens when more messages wait than may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtLimit {
    /// All are dropped: the owner publishes the whole state again, or ends the receiver.
    StartOver,
    /// The oldest is dropped: its loss does no harm.
    DropOldest,
}

impl<M: Control> Post<M> {
    /// At most `limit` messages wait; beyond that, all are dropped, and [`Self::take_overflow`]
    /// says so.
    pub fn new(to: Recipient<M>, limit: usize) -> Self {
        Self::with(to, limit, AtLimit::StartOver)
    }

    /// For messages that say again what the receiver can do without: the latest `limit` wait.
    pub fn lossy(to: Recipient<M>, limit: usize) -> Self {
        Self::with(to, limit, AtLimit::DropOldest)
    }

    fn with(to: Recipient<M>, limit: usize, at_limit: AtLimit) -> Self {
        Self {
            to,
            waiting: RefCell::default(),
            limit,
            at_limit,
            has_overflowed: Cell::new(false),
        }
    }

    /// For a question: its asker waits for room.
    pub fn recipient(&self) -> Recipient<M> {
        self.to.clone()
    }

    /// Sends the message, or keeps it behind those that wait. After an overflow, drops it.
    pub fn tell(&self, message: M) {
        if self.has_overflowed.get() {
            return;
        }
        let mut waiting = self.waiting.borrow_mut();
        let message = match waiting.is_empty() {
            true => match self.to.try_send(message) {
                Ok(()) | Err(SendError::Closed(_)) => return,
                Err(SendError::Full(message)) => message,
            },
            false => message,
        };
        waiting.retain(|earlier| !message.replaces(earlier));
        if waiting.len() >= self.limit {
            match self.at_limit {
                AtLimit::StartOver => {
                    waiting.clear();
                    return self.has_overflowed.set(true);
                }
                AtLimit::DropOldest => drop(waiting.pop_front()),
            }
        }
        waiting.push_back(message);
    }

    /// Whether messages wait, or have been dropped.
    pub fn is_waiting(&self) -> bool {
        self.has_overflowed.get() || !self.waiting.borrow().is_empty()
    }

    /// Sends what waits, as far as there is room.
    pub fn resend(&self) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(message) = waiting.pop_front() {
            match self.to.try_send(message) {
                Ok(()) => {}
                Err(SendError::Full(message)) => return waiting.push_front(message),
                Err(SendError::Closed(_)) => return waiting.clear(),
            }
        }
    }

    /// Whether messages were dropped since the last call. From now on messages are sent again.
    pub fn take_overflow(&self) -> bool {
        self.has_overflowed.take()
    }
}

/// Sends, unless the mailbox is full: the receiver asks again, or does without.
pub fn offer<M: Message<Result = ()> + Send + 'static>(to: &Recipient<M>, message: M) {
    if let Err(SendError::Full(_)) = to.try_send(message) {
        tracing::debug!(
            message = std::any::type_name::<M>(),
            "dropped: a mailbox is full"
        );
    }
}

/// Messages that may wait for a ConnectionActor: a client gets a few for each authorization.
pub const FOR_CONNECTION: usize = 64;
/// Messages that may wait for a shared actor: a few for each of thousands of clients, as after the
/// loss of a shard.
pub const FOR_SHARED: usize = 8192;
/// Messages of one actor that may wait for the supervisor. Later addresses, pins, authorizations,
/// paths and sessions replace earlier ones; the rest are a few for each request under way.
pub const FOR_SUPERVISOR: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Debug, PartialEq, Message)]
    #[rtype(result = "()")]
    enum Word {
        Said(u8),
        Latest(u8),
    }

    impl Control for Word {
        fn replaces(&self, earlier: &Self) -> bool {
            matches!((self, earlier), (Self::Latest(_), Self::Latest(_)))
        }
    }

    #[derive(Clone, Default)]
    struct Listener(Arc<Mutex<Vec<Word>>>);

    impl Actor for Listener {
        type Context = Context<Self>;
    }

    impl Handler<Word> for Listener {
        type Result = ();

        fn handle(&mut self, word: Word, _: &mut Context<Self>) {
            self.0.lock().unwrap().push(word);
        }
    }

    /// A listener with room for nothing but the sender's own place, not started.
    fn full() -> (Context<Listener>, Recipient<Word>) {
        let mut context = Context::new();
        context.set_mailbox_capacity(1);
        let address = context.address();
        while address.try_send(Word::Said(0)).is_ok() {}
        (context, address.clone().recipient())
    }

    async fn heard(context: Context<Listener>, post: &Post<Word>) -> Vec<Word> {
        let listener = Listener::default();
        let address = context.run(listener.clone());
        while post.is_waiting() {
            post.resend();
            tokio::task::yield_now().await;
        }
        address.send(Word::Said(99)).await.unwrap();
        let mut heard = std::mem::take(&mut *listener.0.lock().unwrap());
        heard.retain(|word| !matches!(word, Word::Said(0 | 99)));
        heard
    }

    #[actix::test]
    async fn messages_wait_in_order() {
        let (context, to) = full();
        let post = Post::new(to, 3);
        (1..=4).for_each(|word| post.tell(Word::Said(word)));
        assert!(post.is_waiting() && !post.take_overflow());
        let expected: Vec<_> = (1..=4).map(Word::Said).collect();
        assert_eq!(heard(context, &post).await, expected);
    }

    #[actix::test]
    async fn beyond_the_limit_nothing_waits_and_the_owner_hears_of_it_once() {
        let (context, to) = full();
        let post = Post::new(to, 3);
        (1..=5).for_each(|word| post.tell(Word::Said(word)));
        post.tell(Word::Said(6));
        assert!(post.take_overflow());
        assert!(!post.take_overflow() && !post.is_waiting());
        post.tell(Word::Said(7));
        assert_eq!(heard(context, &post).await, [Word::Said(1), Word::Said(7)]);
    }

    #[actix::test]
    async fn a_later_message_replaces_an_earlier_one_of_its_kind() {
        let (context, to) = full();
        let post = Post::new(to, 3);
        post.tell(Word::Said(1));
        for word in 1..=9 {
            post.tell(Word::Latest(word));
        }
        post.tell(Word::Said(2));
        let expected = [Word::Said(1), Word::Latest(9), Word::Said(2)];
        assert_eq!(heard(context, &post).await, expected);
    }

    #[actix::test]
    async fn a_lossy_post_keeps_the_latest() {
        let (context, to) = full();
        let post = Post::lossy(to, 2);
        (1..=5).for_each(|word| post.tell(Word::Said(word)));
        assert!(!post.take_overflow());
        let expected = [1, 4, 5].map(Word::Said);
        assert_eq!(heard(context, &post).await, expected);
    }

    #[actix::test]
    async fn nothing_waits_for_a_dead_receiver() {
        let (context, to) = full();
        let post = Post::new(to, 3);
        (1..=3).for_each(|word| post.tell(Word::Said(word)));
        assert!(post.is_waiting());
        drop(context);
        post.resend();
        assert!(!post.is_waiting());
        post.tell(Word::Said(4));
        assert!(!post.is_waiting());
    }
}
