//! Which format of metrics a scraper would rather have.

/// Whether the values of `Accept` prefer OpenMetrics to the older text format, which everything reads.
pub(super) fn prefers_openmetrics<'a>(values: impl Iterator<Item = &'a str>) -> bool {
    let (mut openmetrics, mut text) = (0, 0);
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let Some(media_type) = parts.next() else {
            continue;
        };
        let parameters = parts.filter_map(|part| part.split_once('='));
        let (mut quality, mut version) = (1000, "");
        for (name, value) in parameters {
            match name.trim() {
                "q" => quality = thousandths(value.trim()),
                "version" => version = value.trim().trim_matches('"'),
                _ => {}
            }
        }
        match (media_type, version) {
            ("application/openmetrics-text", "1.0.0" | "") => {
                openmetrics = openmetrics.max(quality);
            }
            ("text/plain" | "text/*" | "*/*", _) => text = text.max(quality),
            _ => {}
        }
    }
    openmetrics > 0 && openmetrics >= text
}

/// A quality (RFC 9110 section 12.4.2) in thousandths; 0 for what is none.
fn thousandths(quality: &str) -> u32 {
    let quality = quality.parse::<f32>().unwrap_or_default();
    // Saturates, and makes 0 of what is not a number.
    (quality.clamp(0.0, 1.0) * 1000.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scrapers_send() {
        let check = |accept: &[&str], expected| {
            assert_eq!(
                prefers_openmetrics(accept.iter().copied()),
                expected,
                "{accept:?}"
            );
        };
        // Prometheus 2.42, and 3.
        check(
            &[
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            ],
            true,
        );
        check(
            &[
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            ],
            true,
        );
        check(
            &[
                "text/plain;version=0.0.4;q=0.9, application/openmetrics-text; version=\"1.0.0\"; q=0.8",
            ],
            false,
        );
        check(&["application/openmetrics-text"], true);
        check(&["text/plain", "application/openmetrics-text"], true);
        check(&["application/openmetrics-text;q=0"], false);
        check(&["application/openmetrics-text;q=x"], false);
        check(&["application/openmetrics-text;version=2.0.0"], false);
        check(&["text/html,application/xhtml+xml,*/*;q=0.8"], false);
        check(&["*/*"], false);
        check(&[""], false);
        check(&[], false);
    }
}
