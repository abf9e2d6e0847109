//! The pages a new site has: help for Lumenbase, a product nobody sells.

use bytes::Bytes;

use crate::clock::Moment;

use super::{Comment, Receiving, Shelf, Upload, User, Wiki};

impl Wiki {
    pub(super) fn fill(&mut self, now: Moment) {
        for (age_days, (path, text, tags)) in (1..).zip(PAGES) {
            let created = Moment::at(now.seconds() - 86_400 * (40 - age_days));
            let id = self.add_page((*path).to_owned(), ADMIN, created);
            let page = self.page_mut(id).expect("the page was just added");
            page.text = (*text).to_owned();
            page.revision = 1;
            page.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
            if page.is_home() {
                "Lumenbase Help".clone_into(&mut page.title);
            }
            page.restricted = path.starts_with("Internal");
        }
        if let Some(page) = self.page_mut(HOME) {
            page.comments.push(Comment {
                author: User::ANONYMOUS,
                posted: page.created,
                text: "Very helpful, thank you!".to_owned(),
            });
            page.ratings.insert(ADMIN, 1.0);
        }
        let mut received = Receiving::new(&Shelf::default());
        received.append(&Bytes::from_static(
            b"Lumenbase quick start\n1. Unpack\n2. Plug in\n3. Shine\n",
        ));
        let upload = Upload {
            media_type: "text/plain".to_owned(),
            description: "One page to print".to_owned(),
            author: ADMIN,
            created: Moment::at(now.seconds() - 86_400 * 30),
            received,
        };
        self.attach(HOME, "quick-start.txt", upload);
    }
}

const ADMIN: u32 = 1;
const HOME: u32 = 1;

/// Path, text, tags. The titles hold what clients encode in different ways.
const PAGES: &[(&str, &str, &[&str])] = &[
    (
        "",
        "<p>Welcome to the help centre of Lumenbase, the lighting controller.</p>",
        &["article:topic-portal", "lumenbase"],
    ),
    (
        "Getting_started",
        "<p>Unpack the controller, mount it, and connect the first lamp.</p>",
        &["article:topic-guide", "setup"],
    ),
    (
        "Getting_started/Install_the_agent",
        "<p>The agent runs on any small computer in the same network.</p>",
        &["article:howto", "setup"],
    ),
    (
        "Getting_started/Pair_a_lamp",
        "<p>Hold the button for five seconds until the lamp blinks twice.</p>",
        &["article:howto", "lamp"],
    ),
    (
        "Troubleshooting",
        "<p>Start here when a lamp stays dark.</p>",
        &["article:topic-guide"],
    ),
    (
        "Troubleshooting/Reset_a_lamp",
        "<p>Resetting a lamp forgets its controller &amp; all scenes.</p>",
        &["article:howto", "lamp"],
    ),
    (
        "Input//Output",
        "<p>Pins 1 to 8 are inputs, 9 to 16 outputs.</p>",
        &["article:reference"],
    ),
    (
        "C++_client",
        "<p>Link <code>liblumen</code> and call <code>lumen::connect()</code>.</p>",
        &["article:reference", "api"],
    ),
    (
        "Café",
        "<p>A scene for breakfast: warm, slow, and dimmed to 60 %.</p>",
        &["article:topic", "scene"],
    ),
    (
        "Plans,_prices",
        "<p>Home, Studio and Stage; each with a monthly price.</p>",
        &["article:reference"],
    ),
    (
        "Release:_2026",
        "<p>New in 2026: scenes by voice, and a quieter fan.</p>",
        &["article:topic"],
    ),
    (
        "Internal",
        "<p>For the support team.</p>",
        &["article:topic-guide"],
    ),
    (
        "Internal/Escalations",
        "<p>Call the engineer on duty before replacing a controller.</p>",
        &["article:howto"],
    ),
];
