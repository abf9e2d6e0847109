//! What the site knows: its users, sessions, pages and attachments, all in memory.

use std::collections::HashMap;

use super::clock::Moment;

mod attachments;
mod pages;
mod samples;
mod users;

pub(super) use attachments::{Attachment, Receiving, Shelf, Upload};
pub(super) use pages::{Comment, Page};
pub(super) use users::{Role, User};

/// The whole state of the site.
pub(super) struct Wiki {
    users: Vec<User>,
    /// Session tokens and the ids of their users.
    sessions: HashMap<String, u32>,
    pages: Vec<Page>,
    attachments: Vec<Attachment>,
    page_id_last: u32,
    attachment_id_last: u32,
}

impl Wiki {
    /// The help centre of a product that does not exist.
    pub(super) fn sample(now: Moment) -> Self {
        let mut wiki = Self {
            users: User::samples(),
            sessions: HashMap::new(),
            pages: Vec::new(),
            attachments: Vec::new(),
            page_id_last: 0,
            attachment_id_last: 0,
        };
        wiki.fill(now);
        wiki
    }

    pub(super) fn open_session(&mut self, session: String, user: u32) {
        if self.sessions.len() == SESSIONS_MAX {
            self.sessions.clear();
        }
        self.sessions.insert(session, user);
    }

    pub(super) fn session_user(&self, session: &str) -> Option<&User> {
        self.user(*self.sessions.get(session)?)
    }
}

/// Beyond this, everybody has to sign in again.
const SESSIONS_MAX: usize = 10_000;
