//! What differs between two policies, by name.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::policy::effective::Effective;

/// What was changed, as people are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) routes: Names,
    pub(super) callers: Names,
    pub(super) sites: Names,
    /// Whether the limits that nobody in particular has are others.
    pub(super) limits: bool,
}

/// The names of one kind of thing, each in one of these lists, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
}

impl Changes {
    /// What another policy has changed. `begun` names the sites that are others now, whatever is shown of
    /// them: the tokens are not.
    pub(super) fn between(old: &Effective, new: &Effective, begun: &[&str]) -> Self {
        let [old, new] = [old, new].map(|effective| {
            let parsed = serde_json::from_str(effective.text());
            parsed.unwrap_or(Value::Null)
        });
        let of = |key: &str| [named(&old[key]), named(&new[key])];
        let [old_routes, new_routes] = [&old, &new].map(routes);
        let (callers, sites) = (of("callers"), of("sites"));
        let mut sites = Names::between(&sites[0], &sites[1]);
        for site in begun {
            if !sites
                .added
                .iter()
                .chain(&sites.changed)
                .any(|it| it == site)
            {
                sites.changed.push((*site).to_owned());
            }
        }
        sites.changed.sort_unstable();
        Self {
            routes: Names::between(&old_routes, &new_routes),
            callers: Names::between(&callers[0], &callers[1]),
            sites,
            limits: old["limits"] != new["limits"],
        }
    }

    pub(super) fn as_json(&self) -> Value {
        json!({
            "routes": self.routes.as_json(),
            "callers": self.callers.as_json(),
            "sites": self.sites.as_json(),
            "limits": self.limits,
        })
    }
}

impl Names {
    fn between(old: &BTreeMap<String, Value>, new: &BTreeMap<String, Value>) -> Self {
        let only_in = |one: &BTreeMap<String, Value>, other: &BTreeMap<String, Value>| {
            let names = one.keys().filter(|name| !other.contains_key(*name));
            names.cloned().collect()
        };
        let changed = new
            .iter()
            .filter(|(name, now)| old.get(*name).is_some_and(|before| before != *now));
        Self {
            added: only_in(new, old),
            removed: only_in(old, new),
            changed: changed.map(|(name, _)| name.clone()).collect(),
        }
    }

    fn as_json(&self) -> Value {
        json!({
            "added": self.added,
            "removed": self.removed,
            "changed": self.changed,
        })
    }

    /// How many names there are.
    pub(super) fn count(&self) -> usize {
        self.added.len() + self.removed.len() + self.changed.len()
    }
}

fn named(map: &Value) -> BTreeMap<String, Value> {
    let entries = map.as_object().into_iter().flat_map(Map::iter);
    entries
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Each route by its name, with what its capabilities come to: the file may define some.
fn routes(policy: &Value) -> BTreeMap<String, Value> {
    let list = |key: &str| policy[key].as_array().into_iter().flatten();
    let allowance = |route: &Value| {
        let mut all = list("allowances");
        all.find(|one| one["allow"] == route["allow"]).cloned()
    };
    let routes = list("routes").map(|route| {
        let name = route["name"].as_str().unwrap_or_default();
        (name.to_owned(), json!([route, allowance(route)]))
    });
    routes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(value: &Value) -> Effective {
        Effective::new(value.to_string())
    }

    #[test]
    fn each_name_is_told_once() {
        let old = policy(&json!({
            "routes": [{ "name": "a", "allow": ["own"] }, { "name": "b", "allow": [] }, { "name": "c", "allow": [] }],
            "allowances": [{ "allow": ["own"], "rules": ["GET x"] }, { "allow": [], "rules": [] }],
            "callers": { "crm": 1, "desk": 1 },
            "sites": { "acme": 1, "beta": 1, "gone": 1 },
            "limits": { "connections": 1 },
        }));
        let new = policy(&json!({
            "routes": [{ "name": "c", "allow": [], "host": "x" }, { "name": "a", "allow": ["own"] }, { "name": "d", "allow": [] }],
            "allowances": [{ "allow": [], "rules": [] }, { "allow": ["own"], "rules": ["GET y"] }],
            "callers": { "crm": 2, "portal": 1 },
            "sites": { "acme": 1, "beta": 2, "fresh": 1 },
            "limits": { "connections": 2 },
        }));
        let changes = Changes::between(&old, &new, &["fresh", "beta", "acme"]);
        assert_eq!(
            changes.as_json(),
            json!({
                "routes": { "added": ["d"], "removed": ["b"], "changed": ["a", "c"] },
                "callers": { "added": ["portal"], "removed": ["desk"], "changed": ["crm"] },
                "sites": { "added": ["fresh"], "removed": ["gone"], "changed": ["acme", "beta"] },
                "limits": true,
            })
        );
        assert_eq!(changes.sites.count(), 4);
        assert_eq!(Changes::between(&old, &old, &[]), Changes::default());
    }
}
