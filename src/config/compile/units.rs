//! Sizes and times as the file writes them: a whole number and a unit.

use std::time::Duration;

use crate::config::tree::At;

/// A time such as `10s`, from `least` to `most`.
pub(super) fn duration(at: At<'_>, least: Duration, most: Duration) -> Option<Duration> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let cure = format!(
        "a time is a whole number and a unit (ms, s, m, h) such as 10s, here from {} to {}",
        shown(least),
        shown(most)
    );
    let time = quantity(at, &units, &cure).map(Duration::from_millis)?;
    if time < least || time > most {
        at.problem(cure);
        return None;
    }
    Some(time)
}

/// A size such as `64MiB`, at most `most` bytes.
pub(super) fn bytes(at: At<'_>, most: u64) -> Option<u64> {
    let units = [
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];
    let cure = "a size is a whole number and a unit (B, KiB, MiB, GiB) such as 64MiB";
    let size = quantity(at, &units, cure)?;
    if size > most {
        at.problem(format!(
            "this is too large; at most {} MiB are allowed here",
            most >> 20
        ));
        return None;
    }
    Some(size)
}

fn quantity(at: At<'_>, units: &[(&str, u64)], cure: &str) -> Option<u64> {
    if at.is_number() {
        at.problem(cure);
        return None;
    }
    let text = at.text()?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = units
        .iter()
        .find(|(name, _)| *name == unit.trim_start())
        .map(|(_, factor)| *factor);
    let amount = factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
    if amount.is_none() {
        at.problem(cure);
    }
    amount
}

fn shown(time: Duration) -> String {
    if time.subsec_millis() == 0 {
        format!("{}s", time.as_secs())
    } else {
        format!("{}ms", time.as_millis())
    }
}
