//! As which user a caller acts at a site.

use std::sync::Arc;

use super::caller::Caller;
use crate::signing::User;

/// A caller on a route, and the user it acts as there.
///
/// The user is fixed when the file is compiled, spelt as the route's site wants it: nothing in a
/// request can choose another one.
#[derive(Clone, Debug)]
pub struct ActingCaller {
    /// Who calls.
    pub caller: Arc<Caller>,
    /// Whom the site is told.
    pub user: User,
}
