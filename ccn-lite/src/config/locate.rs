//! Where in the file a field stands.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The line, from 1, of the field at `path` (such as `genesis.balances[1].amount`), or of the innermost table or list
/// that is there when the field itself is not written.
pub(super) fn line_of(text: &str, path: &str) -> usize {
    let offset = DeTable::parse(text).map_or(0, |table| offset_of(&table, path));
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

fn offset_of(table: &Spanned<DeTable<'_>>, path: &str) -> usize {
    let mut offset = table.span().start;
    let mut table = Some(table.get_ref());
    let mut list = None;
    for step in path.split(['.', '[']) {
        let value: Option<&Spanned<DeValue<'_>>> = match step.strip_suffix(']') {
            Some(index) => {
                let index: Option<usize> = index.parse().ok();
                index
                    .and_then(|index| list.and_then(|list: &toml::de::DeArray<'_>| list.get(index)))
            }
            None => table.and_then(|table| table.get(step)),
        };
        let Some(value) = value else { break };
        offset = value.span().start;
        table = value.get_ref().as_table();
        list = value.get_ref().as_array();
    }
    offset
}
