//! When a message was signed: where that stands, how it is written, and how far from now it may be.

use std::time::Duration;

use super::SignatureFault;
use crate::signing::Epoch;

/// When a message was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// Where it stands.
    pub source: Source,
    /// How it is written.
    pub format: Format,
    /// How long ago it may be.
    pub tolerance: Duration,
    /// How far in the future it may be: clocks differ.
    pub tolerance_ahead: Duration,
}

/// Where the time stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a header of its own, in lower case.
    Header(Box<str>),
    /// In the signature's header: the entry that begins so.
    Entry(Box<str>),
}

/// How the time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `2026-07-14T12:00:00Z`, perhaps with a fraction (RFC 3339, UTC).
    Iso8601,
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Milliseconds,
    /// Either: from twelve digits on it is milliseconds, as it has been since 1973.
    Unix,
}

/// How far from now the time in a message may be where nothing else is said.
const TOLERANCE: Duration = Duration::from_secs(300);

impl Timestamp {
    /// A time that may be five minutes from now, in either direction.
    pub fn within_minutes(source: Source, format: Format) -> Self {
        Self {
            source,
            format,
            tolerance: TOLERANCE,
            tolerance_ahead: TOLERANCE,
        }
    }

    /// Whether a time is near enough to now.
    pub(super) fn check(&self, written: &[u8], now: Epoch) -> Result<(), SignatureFault> {
        let millis = self.format.read(written);
        let signed_at = millis.ok_or(SignatureFault::TimestampMalformed)?;
        let now = now.as_unix().saturating_mul(1000);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if signed_at.saturating_add(millis(self.tolerance)) < now {
            return Err(SignatureFault::TimestampOld);
        }
        // Now is a whole second, and what is signed within it is not ahead.
        if signed_at > now.saturating_add(999 + millis(self.tolerance_ahead)) {
            return Err(SignatureFault::TimestampAhead);
        }
        Ok(())
    }
}

impl Format {
    /// Milliseconds since 1970.
    fn read(self, written: &[u8]) -> Option<u64> {
        let seconds = || number(written)?.checked_mul(1000);
        match self {
            Self::Iso8601 => iso8601(written),
            Self::Seconds => seconds(),
            Self::Milliseconds => number(written),
            Self::Unix if written.len() >= 12 => number(written),
            Self::Unix => seconds(),
        }
    }
}

/// A decimal number of digits alone.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        Some(number * 10 + u64::from(digit))
    })
}

/// Milliseconds since 1970 of a time in UTC.
fn iso8601(written: &[u8]) -> Option<u64> {
    const FORM: &[u8] = b"0000-00-00T00:00:00";
    let (time, rest) = written.split_at_checked(FORM.len())?;
    let has_form = |(byte, form): (&u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        _ => byte == form,
    };
    if !time.iter().zip(FORM).all(has_form) {
        return None;
    }
    let fraction = match rest.strip_suffix(b"Z")? {
        b"" => 0,
        [b'.', digits @ ..] if (1..=9).contains(&digits.len()) => {
            let number = number(digits)?;
            number * 1000 / 10_u64.pow(u32::try_from(digits.len()).ok()?)
        }
        _ => return None,
    };
    let part = |from: usize, to: usize| number(&time[from..to]);
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    // A leap second is the one after it.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_since_1970(year, month, day)?;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * 1000 + fraction)
}

/// Days of the Gregorian calendar; `None` for a day that there is not.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_leap = |year: u64| match year.is_multiple_of(100) {
        true => year.is_multiple_of(400),
        false => year.is_multiple_of(4),
    };
    let days_in = |month: u64| match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if year < 1970 || !(1..=12).contains(&month) || !(1..=days_in(month)).contains(&day) {
        return None;
    }
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    Some(years + (1..month).map(days_in).sum::<u64>() + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table is read in one piece")]
    fn times_as_they_are_written() {
        let check = |format: Format, written: &str, expected: Option<u64>| {
            assert_eq!(format.read(written.as_bytes()), expected, "{written}");
        };
        let iso = Format::Iso8601;
        check(iso, "1970-01-01T00:00:00Z", Some(0));
        check(iso, "2021-03-25T05:09:27Z", Some(1_616_648_967_000));
        check(iso, "2026-07-14T12:00:00Z", Some(1_784_030_400_000));
        check(iso, "2026-07-14T12:00:00.5Z", Some(1_784_030_400_500));
        check(
            iso,
            "2026-07-14T12:00:00.123456789Z",
            Some(1_784_030_400_123),
        );
        check(iso, "2000-02-29T23:59:60Z", Some(951_868_800_000));
        check(iso, "2100-03-01T00:00:00Z", Some(4_107_542_400_000));
        check(iso, "9999-12-31T23:59:59Z", Some(253_402_300_799_000));
        for wrong in [
            "",
            "2026-07-14T12:00:00",
            "2026-07-14T12:00:00z",
            "2026-07-14t12:00:00Z",
            "2026-07-14 12:00:00Z",
            "2026-07-14T12:00:00+00:00",
            "2026-07-14T12:00:00.Z",
            "2026-07-14T12:00:00.1234567890Z",
            "2026-07-14T12:00:00.-1Z",
            "2026-07-14T12:00:00ZZ",
            "2026-07-14T12:00Z",
            "2026-7-14T12:00:00Z",
            "+026-07-14T12:00:00Z",
            "2026-00-14T12:00:00Z",
            "2026-13-14T12:00:00Z",
            "2026-07-00T12:00:00Z",
            "2026-02-29T12:00:00Z",
            "2100-02-29T12:00:00Z",
            "2026-04-31T12:00:00Z",
            "2026-07-14T24:00:00Z",
            "2026-07-14T12:60:00Z",
            "1969-12-31T23:59:59Z",
            "1784030400",
        ] {
            check(iso, wrong, None);
        }
        let both = [(Format::Seconds, 1000), (Format::Milliseconds, 1)];
        for (format, factor) in both {
            check(format, "0", Some(0));
            check(format, "1790000000", Some(1_790_000_000 * factor));
            for wrong in [
                "",
                "-1",
                "+1",
                " 1",
                "1.0",
                "1e9",
                "0x1",
                "12345678901234567",
            ] {
                check(format, wrong, None);
            }
        }
        check(Format::Unix, "1790000000", Some(1_790_000_000_000));
        check(Format::Unix, "1790000000123", Some(1_790_000_000_123));
    }

    #[test]
    fn how_far_from_now() {
        let now = 1_790_000_000_u64;
        let check = |offset_millis: i64, expected: Result<(), SignatureFault>| {
            let rules = Timestamp {
                source: Source::Header("x-time".into()),
                format: Format::Milliseconds,
                tolerance: Duration::from_secs(300),
                tolerance_ahead: Duration::from_secs(60),
            };
            let written = (now * 1000).saturating_add_signed(offset_millis);
            let judged = rules.check(written.to_string().as_bytes(), Epoch::from_unix(now));
            assert_eq!(judged, expected, "{offset_millis}");
        };
        check(0, Ok(()));
        check(-300_000, Ok(()));
        check(-300_001, Err(SignatureFault::TimestampOld));
        check(60_999, Ok(()));
        check(61_000, Err(SignatureFault::TimestampAhead));
    }
}
