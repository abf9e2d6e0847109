//! `countersign capabilities`: what each built-in capability covers.

use std::io::Write;

use clap::Args;
use serde_json::{Map, Value, json};

use super::{Outcome, complain};
use crate::config::{self, NamedCapability};
use crate::policy::capability::Rule;
use crate::policy::method::METHODS;

/// List the built-in capabilities, or what one of them covers.
#[derive(Args, Debug)]
pub struct Capabilities {
    /// Only this one, with its methods and paths
    name: Option<String>,
    /// Write one JSON object
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Write a page of documentation
    #[arg(long, conflicts_with = "name")]
    markdown: bool,
}

impl Capabilities {
    pub(super) fn run(self, out: &mut dyn Write) -> std::io::Result<Outcome> {
        let mut all = config::capabilities();
        if let Some(name) = &self.name {
            let Some(found) = all.iter().position(|one| one.name == *name) else {
                let known = all.iter().map(|one| &*one.name);
                let cure = config::cure(name, known, "capabilities");
                complain(format_args!(
                    "there is no built-in capability of this name; {cure}"
                ));
                return Ok(Outcome::Bad);
            };
            all = vec![all.swap_remove(found)];
        }
        if self.json {
            let object: Map<_, _> = all.iter().map(as_json).collect();
            writeln!(out, "{:#}", Value::Object(object))?;
        } else if self.markdown {
            page(&all, out)?;
        } else if let (Some(_), [one]) = (&self.name, &all[..]) {
            writeln!(out, "{}: {}", one.name, one.about)?;
            write_rules(&one.rules, out)?;
            if !one.except.is_empty() {
                writeln!(out, "but not these, which other capabilities cover:")?;
                write_rules(&one.except, out)?;
            }
        } else {
            let width = all.iter().map(|one| one.name.len()).max().unwrap_or(0);
            for one in &all {
                writeln!(out, "{:<width$}  {}", one.name, one.about)?;
            }
        }
        Ok(Outcome::Good)
    }
}

/// The patterns of rules by method.
fn by_method(rules: &[Rule]) -> Vec<(String, Vec<&str>)> {
    let methods = METHODS.into_iter().map(Some).chain([None]);
    methods
        .map(|method| {
            let of_method = rules.iter().filter(|rule| rule.method == method);
            let patterns = of_method.map(|rule| &**rule.pattern.text()).collect();
            let shown = method.map_or_else(|| "any".to_owned(), |method| method.to_string());
            (shown, patterns)
        })
        .filter(|(_, patterns): &(_, Vec<&str>)| !patterns.is_empty())
        .collect()
}

/// Rules, one a line.
pub(super) fn write_rules(rules: &[Rule], out: &mut dyn Write) -> std::io::Result<()> {
    for (method, patterns) in by_method(rules) {
        for pattern in patterns {
            writeln!(out, "  {method:<7} {pattern}")?;
        }
    }
    Ok(())
}

fn as_json(capability: &NamedCapability) -> (String, Value) {
    let mut value = json!({"about": capability.about, "rules": rules_as_json(&capability.rules)});
    if !capability.except.is_empty() {
        value["except"] = rules_as_json(&capability.except);
    }
    (capability.name.clone(), value)
}

/// Rules by method.
pub(super) fn rules_as_json(rules: &[Rule]) -> Value {
    let by_method = by_method(rules).into_iter();
    by_method
        .map(|(method, patterns)| (method, json!(patterns)))
        .collect::<Map<_, _>>()
        .into()
}

fn page(all: &[NamedCapability], out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "{INTRODUCTION}")?;
    for capability in all {
        writeln!(out, "\n## {}\n\n{}", capability.name, capability.about)?;
        if capability.name == "all" {
            continue;
        }
        table(&capability.rules, out)?;
        if !capability.except.is_empty() {
            writeln!(out, "\nBut not these, which other capabilities cover:")?;
            table(&capability.except, out)?;
        }
    }
    Ok(())
}

fn table(rules: &[Rule], out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "\n| method | paths |\n|---|---|")?;
    for (method, patterns) in by_method(rules) {
        writeln!(out, "| {method} | `{}` |", patterns.join("` `"))?;
    }
    Ok(())
}

const INTRODUCTION: &str = "\
# Capabilities

What a route may `allow`: sets of methods and paths of the MindTouch API. This page is written by
`countersign capabilities --markdown`; `countersign capabilities NAME` shows one of them.

- What no capability of the route lists is refused as `capability_missing`.
- A method is the effective one: a POST that overrides its method counts as what it becomes. GET covers HEAD.
- A path stands after `/@api/deki/`. A word is that word, in any case of its letters; `*` is one segment that is an id, a
  word or a title (`=Some%252FPage`); `{key}` is one segment that is a name or a key in any encoding
  (`mindtouch.page%2523overview`); `**` at the end is any number of `*`.
- Whatever any reading of a path makes one of `mint-credentials` is refused as `mints_credentials` on every route that
  does not allow that one by name, and so is a query parameter that sets a password, as `forbidden_parameter`.
- A file can define its own: `capabilities: { pdf: { about: Download pages., GET: [\"pages/*/pdf\"] } }`.";
