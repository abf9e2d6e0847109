//! Who has an account at the site, and what each may do.

use crate::parameters::{Plus, decode};

use super::Wiki;

/// An account.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) full_name: String,
    pub(crate) email: String,
    pub(crate) role: Role,
}

/// What an account may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Admin,
    Contributor,
    Viewer,
}

impl Role {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::Contributor => "Contributor",
            Self::Viewer => "Viewer",
        }
    }

    pub(crate) const fn operations(self) -> &'static str {
        match self {
            Self::Admin => {
                "LOGIN,BROWSE,READ,SUBSCRIBE,UPDATE,CREATE,DELETE,CHANGEPERMISSIONS,CONTROLPANEL,UNSAFECONTENT,ADMIN"
            }
            Self::Contributor => "LOGIN,BROWSE,READ,SUBSCRIBE,UPDATE,CREATE,DELETE",
            Self::Viewer => "LOGIN,BROWSE,READ,SUBSCRIBE",
        }
    }
}

impl User {
    pub(crate) const ANONYMOUS: u32 = 2;

    pub(crate) const fn is_anonymous(&self) -> bool {
        self.id == Self::ANONYMOUS
    }

    pub(crate) const fn may_write(&self) -> bool {
        !matches!(self.role, Role::Viewer)
    }

    pub(super) fn samples() -> Vec<Self> {
        [
            ("Admin", "Site Administrator", Role::Admin),
            ("Anonymous", "Anonymous User", Role::Viewer),
            ("crm-bot", "CRM integration", Role::Contributor),
            ("support-anna", "Anna Support", Role::Contributor),
            ("jane doe", "Jane Doe", Role::Contributor),
            ("Jörg@example.com", "Jörg Müller", Role::Contributor),
            ("support-ben", "Ben Support", Role::Contributor),
            ("support-chloe", "Chloe Support", Role::Contributor),
        ]
        .into_iter()
        .zip(1..)
        .map(|((name, full_name, role), id)| Self {
            id,
            name: name.to_owned(),
            full_name: full_name.to_owned(),
            email: match name.contains('@') {
                true => name.to_owned(),
                false => format!("user{id}@example.com"),
            },
            role,
        })
        .collect()
    }
}

impl Wiki {
    pub(crate) fn users(&self) -> &[User] {
        &self.users
    }

    pub(crate) fn user(&self, id: u32) -> Option<&User> {
        self.users.iter().find(|user| user.id == id)
    }

    /// By an id, or by a name behind `=`, percent-encoded or not.
    pub(crate) fn user_called(&self, reference: &str) -> Option<&User> {
        match reference.strip_prefix('=') {
            Some(name) => {
                let name = decode(name, Plus::Literal).to_lowercase();
                self.users
                    .iter()
                    .find(|user| user.name.to_lowercase() == name)
            }
            None => self.user(reference.parse().ok()?),
        }
    }

    pub(crate) fn anonymous(&self) -> User {
        self.user(User::ANONYMOUS)
            .expect("every site has its anonymous user")
            .clone()
    }

    /// The account of this reference, made now if it is a name nobody has.
    pub(crate) fn user_created(&mut self, reference: &str) -> Option<User> {
        if let Some(user) = self.user_called(reference) {
            return Some(user.clone());
        }
        let name = decode(reference.strip_prefix('=')?, Plus::Literal);
        if self.users.len() == USERS_MAX || name.is_empty() {
            return None;
        }
        let id = u32::try_from(self.users.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let user = User {
            id,
            full_name: name.clone(),
            email: String::new(),
            name,
            role: Role::Viewer,
        };
        self.users.push(user.clone());
        Some(user)
    }
}

const USERS_MAX: usize = 10_000;
