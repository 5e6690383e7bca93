//! Whether this node's version is at least another one, as Python compares versions (PEP 440): scoring and updaters ask
//! `/status/check/version` with whatever a release is called.

use std::sync::LazyLock;

use regex::Regex;

/// A version as PEP 440 allows it to be written, case and separators included.
static VERSION: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"(?ix)^\s* v?
        (?: (?<epoch>[0-9]+) ! )?
        (?<release>[0-9]+ (?: \. [0-9]+ )*)
        (?<pre> [-_.]? (?: alpha | a | beta | b | preview | pre | c | rc ) [-_.]? [0-9]* )?
        (?<post> - [0-9]+ | [-_.]? (?: post | rev | r ) [-_.]? [0-9]* )?
        (?<dev> [-_.]? dev [-_.]? [0-9]* )?
        (?<local> \+ [a-z0-9]+ (?: [-_.] [a-z0-9]+ )* )?
        \s*$",
    )
    .ok()
});

/// Whether the final release `own`, dotted numbers, is `reference` or newer; `None` when `reference` is no version.
pub(super) fn is_at_least(own: &str, reference: &str) -> Option<bool> {
    let parts = VERSION.as_ref()?.captures(reference)?;
    let later_epoch = parts
        .name("epoch")
        .is_some_and(|epoch| epoch.as_str().bytes().any(|digit| digit != b'0'));
    let (own, wanted) = (numbers(own), numbers(parts.name("release")?.as_str()));
    Some(match own.cmp(&wanted) {
        _ if later_epoch => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Less => false,
        // Of the same release, what comes before it (1.0rc1, 1.0.dev3) is older, what comes after it (1.0.post1,
        // 1.0+local) is newer. A development release of a post-release is still after the release.
        std::cmp::Ordering::Equal => {
            parts.name("pre").is_some()
                || parts.name("post").is_none()
                    && (parts.name("dev").is_some() || parts.name("local").is_none())
        }
    })
}

/// The parts of a release, each as its digits without leading zeros and their number, which compare as numbers of any size
/// do; zeros at the end make no difference.
fn numbers(release: &str) -> Vec<(usize, &str)> {
    let digits = |part: &'_ str| part.trim_start_matches('0').len();
    let mut parts: Vec<_> = release
        .split('.')
        .map(|part| (digits(part), &part[part.len() - digits(part)..]))
        .collect();
    while parts.last().is_some_and(|(length, _)| *length == 0) {
        parts.pop();
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_compare_as_python_compares_them() {
        for (reference, expected) in [
            ("1.14.0", Some(true)),
            ("1.14", Some(true)),
            ("v1.14.0.0", Some(true)),
            ("1.14.0rc2", Some(true)),
            ("1.14.0-alpha", Some(true)),
            ("1.14.0.dev3", Some(true)),
            ("1.9.99", Some(true)),
            ("01.014", Some(true)),
            ("1.14.0.post1", Some(false)),
            ("1.14.0-1", Some(false)),
            ("1.14.0.post1.dev2", Some(false)),
            ("1.14.0+deb12", Some(false)),
            ("1.14.1a1", Some(false)),
            ("1.100", Some(false)),
            ("1!0.1", Some(false)),
            ("0!1.0", Some(true)),
            ("99999999999999999999999999", Some(false)),
            ("", None),
            ("latest", None),
            ("1..2", None),
            ("1.2-", None),
            ("-1", None),
        ] {
            assert_eq!(is_at_least("1.14.0", reference), expected, "{reference}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_compared_or_refused(text in ".*", own in prop::collection::vec(any::<u32>(), 1..5),
            other in prop::collection::vec(any::<u32>(), 1..5)) {
            let _ = is_at_least("1.14.0", &text);
            let join = |parts: &[u32]| parts.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
            let padded = |parts: &[u32]| { let mut parts = parts.to_vec(); parts.resize(5, 0); parts };
            let expected = padded(&own) >= padded(&other);
            prop_assert_eq!(is_at_least(&join(&own), &join(&other)), Some(expected));
        }
    }
}
