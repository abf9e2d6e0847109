//! `countersign check`: every problem of proxy.yaml, every warning, and what its routes allow.

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use super::capabilities::{rules_as_json, write_rules};
use super::{ConfigFile, Outcome, complain};
use crate::config::problem::Problem;
use crate::config::{self, Loaded, Overview, RouteOverview, Unusable};

/// Say everything that is wrong with the configuration, without starting anything.
#[derive(Args, Debug)]
pub struct Check {
    #[command(flatten)]
    config: ConfigFile,
    /// Only this route, with all the methods and paths it allows
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Write one JSON object, with everything that each route allows
    #[arg(long)]
    json: bool,
    /// Judge the file where its secrets are not, as in CI: what env: and file: refer to is not looked up
    #[arg(long)]
    no_secrets: bool,
}

impl Check {
    pub(super) fn run(self, out: &mut dyn Write) -> std::io::Result<Outcome> {
        let mut checked = if self.no_secrets {
            config::judge_without_secrets(&self.config.config)
        } else {
            config::load(&self.config.config).map(Loaded::overview)
        };
        let count = checked.as_ref().map_or(0, |overview| overview.routes.len());
        if let (Ok(overview), Some(wanted)) = (&mut checked, &self.route) {
            let mut routes = overview.routes.iter();
            let Some(found) = routes.position(|route| *route.name == **wanted) else {
                let known = overview.routes.iter().map(|route| &*route.name);
                let cure = config::cure(wanted, known, "routes");
                complain(format_args!("there is no route of this name; {cure}"));
                return Ok(Outcome::Bad);
            };
            overview.routes = vec![overview.routes.swap_remove(found)];
        }
        if self.json {
            writeln!(out, "{:#}", self.report(&checked))?;
        } else {
            match &checked {
                Ok(overview) => self.tell(overview, count, out)?,
                Err(unusable) => complain(unusable),
            }
        }
        Ok(match checked {
            Ok(_) => Outcome::Good,
            Err(_) => Outcome::Bad,
        })
    }

    fn file(&self) -> String {
        self.config.config.display().to_string()
    }

    fn report(&self, checked: &Result<Overview, Unusable>) -> Value {
        let (problems, warnings, routes) = match checked {
            Ok(overview) => (&[][..], &overview.warnings[..], &overview.routes[..]),
            Err(unusable) => (&unusable.problems[..], &[][..], &[][..]),
        };
        json!({
            "file": self.file(),
            "usable": checked.is_ok(),
            "secrets": !self.no_secrets,
            "problems": problems_as_json(problems),
            "warnings": problems_as_json(warnings),
            "routes": routes.iter().map(route_as_json).collect::<Value>(),
        })
    }

    /// `count` are the routes of the whole file.
    fn tell(&self, overview: &Overview, count: usize, out: &mut dyn Write) -> std::io::Result<()> {
        let file = self.file();
        for warning in &overview.warnings {
            complain(format_args!("warning: {}", warning.in_file(&file)));
        }
        let proviso = if self.no_secrets {
            " as far as can be told without its secrets"
        } else {
            ""
        };
        writeln!(
            out,
            "{file} is usable{proviso} ({}, {})\n",
            counted(overview.listeners, "listener"),
            counted(count, "route"),
        )?;
        match (&self.route, &overview.routes[..]) {
            (Some(_), [route]) => write_route(route, out),
            (_, routes) => write_table(routes, out),
        }
    }
}

fn problems_as_json(problems: &[Problem]) -> Value {
    let one = |problem: &Problem| {
        json!({
            "line": problem.line,
            "path": problem.path(),
            "place": problem.place,
            "text": problem.text,
        })
    };
    problems.iter().map(one).collect()
}

fn route_as_json(route: &RouteOverview) -> Value {
    json!({
        "name": &*route.name,
        "host": route.host,
        "mount": route.mount,
        "site": &*route.site,
        "token": token(route),
        "callers": names(route.callers.iter().flatten()),
        "allow": names(route.allow.capabilities()),
        "rules": rules_as_json(&route.allow.rules()),
        "except": rules_as_json(&route.allow.exceptions()),
    })
}

/// A line for each route, short enough to be read with fifty of them.
fn write_table(routes: &[RouteOverview], out: &mut dyn Write) -> std::io::Result<()> {
    let shown = &routes[..routes.len().min(ROUTES_SHOWN_MAX)];
    let head = ["route", "answers", "site", "token", "callers", "allows"].map(str::to_owned);
    let row = |route: &RouteOverview| {
        [
            route.name.to_string(),
            place(route),
            route.site.to_string(),
            token(route).to_owned(),
            match &route.callers {
                Some(callers) => shortened(&names(callers), CALLERS_SHOWN_MAX),
                None => "web pages".to_owned(),
            },
            shortened(&names(route.allow.capabilities()), CAPABILITIES_SHOWN_MAX),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(shown.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max();
    let widths = [0, 1, 2, 3, 4].map(|column| width(column).unwrap_or_default());
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            write!(out, "{cell:<width$}  ")?;
        }
        let [.., allows] = row;
        writeln!(out, "{allows}")?;
    }
    if routes.len() > shown.len() {
        let more = routes.len() - shown.len();
        writeln!(out, "… and {more} more; --json has all of them")?;
    }
    writeln!(
        out,
        "\ncountersign check --route NAME lists all the methods and paths that one of them allows"
    )
}

/// One route with everything it allows.
fn write_route(route: &RouteOverview, out: &mut dyn Write) -> std::io::Result<()> {
    let callers = match &route.callers {
        Some(callers) => names(callers).join(", "),
        None => "web pages".to_owned(),
    };
    let allows = names(route.allow.capabilities()).join(", ");
    for (what, value) in [
        ("route", &*route.name),
        ("answers", &place(route)),
        ("site", &route.site),
        ("token", token(route)),
        ("callers", &callers),
        ("allows", &allows),
    ] {
        writeln!(out, "{what:<8} {value}")?;
    }
    writeln!(out, "\nof the API, below /@api/deki/:")?;
    write_rules(&route.allow.rules(), out)?;
    let exceptions = route.allow.exceptions();
    if !exceptions.is_empty() {
        writeln!(
            out,
            "but not these, which no capability of the route covers:"
        )?;
        write_rules(&exceptions, out)?;
    }
    if !route.allow.may_mint() {
        writeln!(
            out,
            "but nothing of mint-credentials, which countersign capabilities mint-credentials lists"
        )?;
    }
    Ok(())
}

/// Host and mount as they begin an address.
fn place(route: &RouteOverview) -> String {
    let host = route.host.as_deref().unwrap_or_default();
    format!("{host}{}/", route.mount)
}

fn token(route: &RouteOverview) -> &'static str {
    match route.callers {
        Some(_) => "server",
        None => "browser",
    }
}

fn names<'a, S: AsRef<str> + 'a>(names: impl IntoIterator<Item = &'a S>) -> Vec<&'a str> {
    names.into_iter().map(AsRef::as_ref).collect()
}

fn shortened(names: &[&str], shown_max: usize) -> String {
    match names.len().saturating_sub(shown_max) {
        0 => names.join(", "),
        more => format!("{}, +{more}", names[..shown_max].join(", ")),
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// Most routes of the table.
const ROUTES_SHOWN_MAX: usize = 100;

/// Most callers of a line.
const CALLERS_SHOWN_MAX: usize = 3;

/// Most capabilities of a line.
const CAPABILITIES_SHOWN_MAX: usize = 6;
