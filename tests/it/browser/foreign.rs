//! Pages at other hosts, and what a page can send without asking anybody.

use countersign::policy::Refusal;
use serde_json::{Value, json};

use super::{CRM, FETCH, SEARCH, Scene};
use crate::harness::BROWSER_KEY;

const EVIL: &str = "https://evil.test";

/// What `fetch` can send: its name, how, whether it carries an `Origin`, and whether the browser
/// lets the page have an answer it cannot look into.
fn fetches() -> Vec<(&'static str, Value, bool, bool)> {
    let text = json!({ "Content-Type": "text/plain" });
    vec![
        ("GET", json!({}), true, false),
        (
            "GET with cookies",
            json!({ "credentials": "include" }),
            true,
            false,
        ),
        ("HEAD", json!({ "method": "HEAD" }), true, false),
        (
            "simple POST",
            json!({ "method": "POST", "headers": text, "body": "x" }),
            true,
            false,
        ),
        (
            "POST with cookies",
            json!({ "method": "POST", "headers": text, "body": "x", "credentials": "include" }),
            true,
            false,
        ),
        (
            "POST of JSON",
            json!({ "method": "POST", "headers": { "Content-Type": "application/json" }, "body": "{}" }),
            true,
            false,
        ),
        ("PUT", json!({ "method": "PUT", "body": "x" }), true, false),
        ("DELETE", json!({ "method": "DELETE" }), true, false),
        (
            "GET with the browser token",
            json!({ "headers": { "X-Deki-Token": BROWSER_KEY } }),
            true,
            false,
        ),
        (
            "GET as a script library",
            json!({ "headers": { "X-Requested-With": "XMLHttpRequest" } }),
            true,
            false,
        ),
        (
            "GET that survives the page",
            json!({ "keepalive": true }),
            true,
            false,
        ),
        ("no-cors GET", json!({ "mode": "no-cors" }), false, true),
        (
            "no-cors GET with cookies",
            json!({ "mode": "no-cors", "credentials": "include" }),
            false,
            true,
        ),
        (
            "no-cors POST",
            json!({ "mode": "no-cors", "method": "POST", "body": "x", "credentials": "include" }),
            true,
            true,
        ),
        (
            "no-cors POST without a referrer",
            json!({ "mode": "no-cors", "method": "POST", "body": "x", "referrerPolicy": "no-referrer" }),
            true,
            true,
        ),
    ]
}

/// Fetches in every way with a script that has `ask` of [`FETCH`].
async fn cannot_fetch(scene: &Scene, page: &str, script: &str) {
    for (name, init, has_origin, is_opaque) in fetches() {
        let refusal = if has_origin {
            Refusal::OriginNotAllowed
        } else {
            Refusal::OriginMissing
        };
        let call = json!({ "address": SEARCH, "init": init });
        let what = format!("{name} from {page}");
        let answer = scene.refuses(&[refusal], &what, script, &call).await;
        if is_opaque {
            assert_eq!(
                answer,
                json!({ "type": "opaque", "status": 0, "headers": {}, "text": "" }),
                "{what}"
            );
        } else {
            assert_eq!(
                answer,
                json!({ "fault": "TypeError: Failed to fetch" }),
                "{what}"
            );
        }
    }
}

pub async fn pages_cannot_fetch(scene: &Scene) {
    for page in [
        EVIL,
        "https://crm.example.com.evil.test",
        "https://evilcrm.example.com",
        "https://example.com",
        // the bare domain of a wildcard
        "https://apps.example.com",
        // an allowed host over another scheme or at another port
        "http://crm.example.com",
        "https://crm.example.com:8444",
        "https://shop.example.com",
    ] {
        scene.browser.visit(page).await;
        cannot_fetch(scene, page, &format!("{FETCH} return ask(argument);")).await;
    }
}

/// Frames without an origin of their own, even in an allowed page.
pub async fn null_origin(scene: &Scene) {
    scene.browser.visit(CRM).await;
    for (name, content) in [
        (
            "a sandboxed frame",
            "frame.sandbox = 'allow-scripts'; frame.srcdoc = content;",
        ),
        (
            "a data: frame",
            "frame.src = 'data:text/html,' + encodeURIComponent(content);",
        ),
    ] {
        let script = format!(
            "const content = `<script>{FETCH} ask(${{JSON.stringify(argument)}}).then((answer) => parent.postMessage(answer, '*'))</script>`;
             const frame = document.createElement('iframe');
             {content}
             const told = new Promise((resolve) => addEventListener('message', resolve, {{ once: true }}));
             document.body.append(frame);
             const message = await told;
             frame.remove();
             if (message.origin !== 'null') throw message.origin;
             return message.data;"
        );
        cannot_fetch(scene, name, &script).await;
    }
}

/// A redirect across origins takes the page's origin away.
pub async fn redirects(scene: &Scene) {
    let script = format!("{FETCH} return ask(argument);");
    for (page, through) in [(EVIL, CRM), (CRM, EVIL), (EVIL, EVIL)] {
        scene.browser.visit(page).await;
        for init in [json!({}), json!({ "method": "POST", "body": "x" })] {
            let call = json!({ "address": format!("{through}/go?{SEARCH}"), "init": init });
            let what = format!("{page} through {through}");
            let answer = scene
                .refuses(&[Refusal::OriginNotAllowed], &what, &script, &call)
                .await;
            assert_eq!(
                answer,
                json!({ "fault": "TypeError: Failed to fetch" }),
                "{what}"
            );
        }
    }
}

/// Puts an element into the page and waits for what comes of it.
const ELEMENT: &str = "
const element = document.createElement(argument.tag);
Object.assign(element, argument.attributes);
const came = new Promise((resolve) => { element.onload = element.onerror = resolve; });
document.body.append(element);
const event = await came;
element.remove();
return event.type;
";

/// Sends a form into a frame and waits until that has loaded.
const FORM: &str = "
const frame = document.createElement('iframe');
frame.name = 'into';
document.body.append(frame);
const form = document.createElement('form');
Object.assign(form, argument.attributes, { target: 'into' });
const field = document.createElement('input');
field.name = 'comment';
field.value = 'x';
form.append(field);
document.body.append(form);
const loaded = new Promise((resolve) => { frame.onload = resolve; });
form.submit();
await loaded;
frame.remove();
form.remove();
return 'sent';
";

const BEACON: &str = "
return navigator.sendBeacon(argument.address, new Blob(['{}'], { type: argument.type }));
";

const XHR: &str = "
const request = new XMLHttpRequest();
request.open('POST', argument.address);
request.withCredentials = true;
return new Promise((resolve) => {
    request.onloadend = () => resolve([request.status, request.responseText]);
    request.send('x');
});
";

const EVENTS: &str = "
const events = new EventSource(argument.address, { withCredentials: true });
return new Promise((resolve) => { events.onerror = events.onopen = (event) => { events.close(); resolve(event.type); }; });
";

const SOCKET: &str = "
const socket = new WebSocket(argument.address.replace('https:', 'wss:'));
return new Promise((resolve) => { socket.onerror = socket.onopen = (event) => resolve(event.type); });
";

fn element(tag: &str, attributes: &Value) -> Value {
    json!({ "tag": tag, "attributes": attributes })
}

pub async fn elements(scene: &Scene) {
    use Refusal::{OriginMissing, OriginNotAllowed};
    scene.browser.visit(EVIL).await;
    let address = json!({ "address": SEARCH });
    let form = |method: &str, enctype: &str| json!({ "attributes": { "action": SEARCH, "method": method, "enctype": enctype } });
    for (what, refusal, script, call, result) in [
        (
            "an image",
            OriginMissing,
            ELEMENT,
            element("img", &json!({ "src": SEARCH })),
            json!("error"),
        ),
        (
            "an image with CORS",
            OriginNotAllowed,
            ELEMENT,
            element("img", &json!({ "src": SEARCH, "crossOrigin": "anonymous" })),
            json!("error"),
        ),
        (
            "an image with cookies",
            OriginNotAllowed,
            ELEMENT,
            element(
                "img",
                &json!({ "src": SEARCH, "crossOrigin": "use-credentials" }),
            ),
            json!("error"),
        ),
        (
            "a script",
            OriginMissing,
            ELEMENT,
            element("script", &json!({ "src": SEARCH })),
            json!("error"),
        ),
        (
            "a module",
            OriginNotAllowed,
            ELEMENT,
            element("script", &json!({ "src": SEARCH, "type": "module" })),
            json!("error"),
        ),
        (
            "a style sheet",
            OriginMissing,
            ELEMENT,
            element("link", &json!({ "href": SEARCH, "rel": "stylesheet" })),
            json!("error"),
        ),
        (
            "an object",
            OriginMissing,
            ELEMENT,
            element("object", &json!({ "data": SEARCH })),
            json!("error"),
        ),
        (
            "a frame",
            OriginMissing,
            ELEMENT,
            element("iframe", &json!({ "src": SEARCH })),
            json!("load"),
        ),
        (
            "a form with GET",
            OriginMissing,
            FORM,
            form("GET", ""),
            json!("sent"),
        ),
        (
            "a form",
            OriginNotAllowed,
            FORM,
            form("POST", "application/x-www-form-urlencoded"),
            json!("sent"),
        ),
        (
            "a form of parts",
            OriginNotAllowed,
            FORM,
            form("POST", "multipart/form-data"),
            json!("sent"),
        ),
        (
            "a form of text",
            OriginNotAllowed,
            FORM,
            form("POST", "text/plain"),
            json!("sent"),
        ),
        (
            "a beacon",
            OriginNotAllowed,
            BEACON,
            json!({ "address": SEARCH, "type": "text/plain" }),
            json!(true),
        ),
        (
            "a beacon of JSON",
            OriginNotAllowed,
            BEACON,
            json!({ "address": SEARCH, "type": "application/json" }),
            json!(true),
        ),
        (
            "XMLHttpRequest",
            OriginNotAllowed,
            XHR,
            address.clone(),
            json!([0, ""]),
        ),
        (
            "an event source",
            OriginNotAllowed,
            EVENTS,
            address.clone(),
            json!("error"),
        ),
        (
            "a socket",
            OriginNotAllowed,
            SOCKET,
            address,
            json!("error"),
        ),
    ] {
        let came = scene.refuses(&[refusal], what, script, &call).await;
        assert_eq!(came, result, "{what}");
    }
    // A form that bounces off an allowed host.
    let action = format!("{CRM}/go?{SEARCH}");
    let call = json!({ "attributes": { "action": action, "method": "POST" } });
    scene
        .refuses(
            &[OriginNotAllowed],
            "a form through an allowed host",
            FORM,
            &call,
        )
        .await;
}

/// Requests without an `Origin` are nobody's, whatever page they come from.
pub async fn elements_of_an_allowed_page(scene: &Scene) {
    scene.browser.visit(CRM).await;
    for (tag, attributes, event) in [
        ("img", json!({ "src": SEARCH }), "error"),
        ("script", json!({ "src": SEARCH }), "error"),
        (
            "link",
            json!({ "href": SEARCH, "rel": "stylesheet" }),
            "error",
        ),
        ("iframe", json!({ "src": SEARCH }), "load"),
    ] {
        let call = element(tag, &attributes);
        let came = scene
            .refuses(&[Refusal::OriginMissing], tag, ELEMENT, &call)
            .await;
        assert_eq!(came, event, "{tag}");
    }
}

/// Answers that a page reads by running them.
pub async fn jsonp(scene: &Scene) {
    for page in [EVIL, CRM] {
        scene.browser.visit(page).await;
        for query in [
            "dream.out.pre=steal(&dream.out.post=)&dream.out.format=json",
            "dream.out.format=jsonp&dream.out.callback=steal",
            "dream.out.callback=steal",
            "dream%2eout%2ecallback=steal",
            "DREAM.OUT.PRE=steal(",
            "dream.out.type=text/javascript",
        ] {
            for cors in [Value::Null, json!("anonymous")] {
                let src = format!("https://gateway.test/widget/@api/deki/pages/home?{query}");
                let mut call = element("script", &json!({ "src": src }));
                if cors != Value::Null {
                    call["attributes"]["crossOrigin"] = cors;
                }
                let script =
                    format!("window.steal = (loot) => {{ window.loot = loot; }}; {ELEMENT}");
                let what = format!("{query} from {page}");
                scene
                    .refuses(&[Refusal::ForbiddenParameter], &what, &script, &call)
                    .await;
            }
        }
        let loot = scene
            .browser
            .run("return window.loot ?? null;", &Value::Null)
            .await;
        assert_eq!(loot, Value::Null);
    }
}

/// Pages of one site (`example.com`) share a cache; an answer kept for one is not the other's.
pub async fn a_neighbour_and_the_cache(scene: &Scene) {
    let address = format!("{SEARCH}&cacheable");
    scene.browser.visit(CRM).await;
    for _ in 0..2 {
        let answer = scene.fetch(&address, json!({})).await;
        assert_eq!(answer["text"], "<kept/>", "{answer}");
    }
    scene.rig.site.only();
    scene.browser.visit("https://apps.example.com").await;
    let script = format!("{FETCH} return ask(argument);");
    for init in [json!({}), json!({ "cache": "force-cache" })] {
        let call = json!({ "address": address, "init": init });
        let answer = scene
            .refuses(&[Refusal::OriginNotAllowed], "a neighbour", &script, &call)
            .await;
        assert_eq!(answer, json!({ "fault": "TypeError: Failed to fetch" }));
    }
}

/// What a developer sees whose host is missing; docs/browser-tokens.md quotes it.
pub async fn console(scene: &Scene) {
    scene.browser.visit("https://new.example.org").await;
    drop(scene.browser.console().await);
    for (init, expected) in [
        (
            json!({}),
            "No 'Access-Control-Allow-Origin' header is present",
        ),
        (
            json!({ "headers": { "X-Deki-Token": BROWSER_KEY } }),
            "Response to preflight request doesn't pass access control check",
        ),
    ] {
        scene.fetch(SEARCH, init).await;
        let lines = scene.browser.console().await;
        assert!(
            lines.iter().any(|line| line
                .contains("'https://new.example.org' has been blocked by CORS policy")
                && line.contains(expected)),
            "{lines:#?}"
        );
    }
}
