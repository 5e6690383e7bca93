//! Lists against a plain search, and the plans of their queries.

use super::super::Store;
use super::*;

/// More than are counted to choose an index.
const POSTS: u64 = FEW + 1_500;

/// Posts of three owners and four types; nearly all in one channel, all with one tag. Every seventh was amended, by
/// something without tags when it had two.
fn fill(conn: &Connection) {
    conn.execute_batch(&format!(
        "BEGIN;
         WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < {POSTS})
         INSERT INTO messages ({COLUMNS}, updated)
         SELECT printf('%064x', n), 'processed', 'POST', 'ETH', 'o' || (n % 3), '', 'inline', '{{}}', '', n,
             iif(n % 100 = 0, 'small', 'big'), 2, n, 'o' || (n % 3), 't' || (n % 4), 'r' || (n % 900), NULL, NULL,
             NULL, iif(n % 50 = 0, '[\"wide\", \"rare\"]', '[\"wide\"]'), n, n
         FROM n;
         INSERT OR IGNORE INTO post_tags SELECT value, updated, item_hash, owner, content_type, channel
             FROM messages, json_each(tags);
         INSERT INTO messages ({COLUMNS})
         SELECT 'amend' || item_hash, status, type, chain, sender, '', item_type, '{{}}', '', time, channel, 2, time,
             owner, 'amend', item_hash, NULL, NULL, NULL, iif(time % 50 = 0, NULL, tags), time + 0.5
         FROM messages WHERE time % 7 = 0;
         UPDATE messages SET amended_by = 'amend' || item_hash, updated = updated + 0.5 WHERE time % 7 = 0
             AND content_type <> 'amend';
         COMMIT;"
    ))
    .unwrap();
}

fn updated(n: u64) -> f64 {
    if n.is_multiple_of(7) {
        n as f64 + 0.5
    } else {
        n as f64
    }
}

fn keeps(filter: &Filter, n: u64) -> bool {
    let has = |list: &[String], value: &str| list.is_empty() || list.iter().any(|v| v == value);
    let channel = if n.is_multiple_of(100) {
        "small"
    } else {
        "big"
    };
    let tags: &[&str] = match (n.is_multiple_of(50), n.is_multiple_of(7)) {
        (true, true) => &[],
        (true, false) => &["wide", "rare"],
        (false, _) => &["wide"],
    };
    has(&filter.owners, &format!("o{}", n % 3))
        && has(&filter.types, &format!("t{}", n % 4))
        && has(&filter.refs, &format!("r{}", n % 900))
        && has(&filter.channels, channel)
        && (filter.tags.is_empty() || tags.iter().any(|tag| has(&filter.tags, tag)))
        && filter.start.is_none_or(|start| updated(n) >= start)
}

fn filled() -> (tempfile::TempDir, Connection) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    drop(Store::open(&path).unwrap());
    let conn = Connection::open(&path).unwrap();
    fill(&conn);
    (dir, conn)
}

fn some(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn whatever_is_asked_for_a_list_holds_what_a_plain_search_finds() {
    let (_dir, conn) = filled();
    let (owners, types, refs) = (
        [vec![], some(&["o1"]), some(&["o0", "o2"])],
        [vec![], some(&["t3"]), some(&["t1", "t2"])],
        [vec![], some(&["r5", "r6"])],
    );
    let channels = [
        vec![],
        some(&["big"]),
        some(&["small"]),
        some(&["none"]),
        some(&["big", "small"]),
    ];
    let tags = [
        vec![],
        some(&["wide"]),
        some(&["rare"]),
        some(&["rare", "other"]),
        some(&["rare", "wide"]),
    ];
    let page = Page { limit: 20, page: 2 };
    // Every seventh: each pair of values meets.
    for case in (0..3 * 3 * 5 * 5 * 2 * 2).step_by(7) {
        let filter = Filter {
            owners: owners[case % 3].clone(),
            types: types[case / 3 % 3].clone(),
            channels: channels[case / 9 % 5].clone(),
            tags: tags[case / 45 % 5].clone(),
            start: (case / 225 % 2 == 1).then_some(2_000.0),
            refs: refs[case / 450].clone(),
            ..Filter::default()
        };
        let expected: Vec<f64> = (0..POSTS)
            .rev()
            .filter(|n| keeps(&filter, *n))
            .map(updated)
            .collect();
        let times = |found: Vec<Merged>| -> Vec<f64> {
            found.iter().map(|merged| merged.updated).collect()
        };
        let found = times(list(&conn, &filter, false, page, None).unwrap());
        let shown: Vec<f64> = expected.iter().skip(20).take(20).copied().collect();
        assert_eq!(found, shown, "{filter:?}");
        if let Some(last) = found.last() {
            let after = After {
                time: *last,
                hash: format!("{:064x}", last.floor() as u64),
            };
            let first = Page { limit: 20, page: 1 };
            let found = times(list(&conn, &filter, false, first, Some(&after)).unwrap());
            let shown: Vec<f64> = expected.iter().skip(40).take(20).copied().collect();
            assert_eq!(found, shown, "{filter:?} after {after:?}");
        }
        assert_eq!(
            count(&conn, &filter).unwrap(),
            expected.len() as u64,
            "{filter:?}"
        );
    }
}

#[test]
fn every_source_is_an_index_in_the_order_of_the_list() {
    let (_dir, conn) = filled();
    type Ask = fn(&mut Filter) -> &mut Vec<String>;
    let sources: [(&str, Source, Option<Ask>); 5] = [
        (
            "tagged USING PRIMARY KEY",
            Source::Tag,
            Some(|f| &mut f.tags),
        ),
        (
            "posts_owner",
            Source::Column("owner"),
            Some(|f| &mut f.owners),
        ),
        (
            "posts_channel",
            Source::Column("channel"),
            Some(|f| &mut f.channels),
        ),
        (
            "posts_type",
            Source::Column("content_type"),
            Some(|f| &mut f.types),
        ),
        ("posts_updated", Source::Updated, None),
    ];
    let after = After {
        time: 1.0,
        hash: String::new(),
    };
    for (index, source, ask) in sources {
        for values in [&["a"][..], &["a", "b"]] {
            let mut filter = Filter::default();
            if let Some(ask) = ask {
                *ask(&mut filter) = some(values);
            }
            for (ascending, after) in [(true, None), (false, Some(&after))] {
                let page = Page { limit: 20, page: 1 };
                let (sql, params) = selection(&filter, source, ascending, page, after);
                let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
                let rows = statement
                    .query_map(params_from_iter(params), |row| row.get(3))
                    .unwrap();
                let plan: Vec<String> = rows.map(Result::unwrap).collect();
                let text = plan.join("\n");
                assert!(text.contains(index), "{sql}\n{text}");
                let sorts = |step: &String| step == "USE TEMP B-TREE FOR ORDER BY";
                assert!(!plan.iter().any(sorts), "{sql}\n{text}");
            }
        }
    }
}

#[test]
fn the_shortest_index_is_read() {
    let (_dir, conn) = filled();
    let cases: [(Source, Filter); 4] = [
        (
            Source::Tag,
            Filter {
                tags: some(&["rare"]),
                owners: some(&["o1"]),
                channels: some(&["big"]),
                ..Filter::default()
            },
        ),
        (
            Source::Column("channel"),
            Filter {
                types: some(&["t1"]),
                channels: some(&["small"]),
                ..Filter::default()
            },
        ),
        (
            Source::Column("content_type"),
            Filter {
                types: some(&["t1"]),
                channels: some(&["big"]),
                ..Filter::default()
            },
        ),
        (
            Source::Column("content_ref"),
            Filter {
                tags: some(&["wide"]),
                refs: some(&["r1"]),
                ..Filter::default()
            },
        ),
    ];
    for (source, filter) in cases {
        assert_eq!(filter.choose(&conn).unwrap().source, source, "{filter:?}");
    }
}
