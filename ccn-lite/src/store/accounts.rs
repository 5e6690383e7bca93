//! Balances and the cost rows charged to accounts. Amounts of tokens are decimal text with 18 places at most.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Conditions, Page, StoreError};
use crate::money::{Decimal, Sum};

/// A line of what a message costs.
#[derive(Debug, Clone)]
pub struct Cost {
    /// Who pays.
    pub owner: String,
    /// The message.
    pub item_hash: String,
    /// Cost type, as shown by the price API.
    pub kind: String,
    /// Name, as shown by the price API.
    pub name: String,
    /// The file it is for.
    pub reference: Option<String>,
    /// `hold`, `superfluid` or `credit`.
    pub payment_type: String,
    /// Tokens to hold.
    pub hold: String,
    /// Tokens a second.
    pub stream: String,
    /// Credits a second.
    pub credit: String,
    /// Size it was computed from.
    pub size_mib: Option<String>,
}

const COLUMNS: &str =
    "owner, item_hash, type, name, ref, payment_type, hold, stream, credit, size_mib";

fn cost(row: &Row<'_>) -> rusqlite::Result<Cost> {
    Ok(Cost {
        owner: row.get(0)?,
        item_hash: row.get(1)?,
        kind: row.get(2)?,
        name: row.get(3)?,
        reference: row.get(4)?,
        payment_type: row.get(5)?,
        hold: row.get(6)?,
        stream: row.get(7)?,
        credit: row.get(8)?,
        size_mib: row.get(9)?,
    })
}

/// Adds a cost row.
pub fn insert_cost(conn: &Connection, c: &Cost) -> Result<(), StoreError> {
    let mut sum = sum(conn, &c.owner, &c.payment_type)?;
    conn.prepare_cached(&format!(
        "INSERT INTO costs ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)"
    ))?
    .execute(params![
        c.owner,
        c.item_hash,
        c.kind,
        c.name,
        c.reference,
        c.payment_type,
        c.hold,
        c.stream,
        c.credit,
        c.size_mib
    ])?;
    sum.add(c.amount());
    set_total(conn, &c.owner, &c.payment_type, sum)
}

/// Takes away the cost rows of a message.
pub fn remove_costs(conn: &Connection, hash: &str) -> Result<(), StoreError> {
    for cost in costs_of_message(conn, hash)? {
        let mut sum = sum(conn, &cost.owner, &cost.payment_type)?;
        sum.subtract(cost.amount());
        set_total(conn, &cost.owner, &cost.payment_type, sum)?;
    }
    conn.prepare_cached("DELETE FROM costs WHERE item_hash = ?")?
        .execute([hash])?;
    Ok(())
}

impl Cost {
    /// The amount in the way it is paid.
    fn amount(&self) -> &str {
        match self.payment_type.as_str() {
            "superfluid" => &self.stream,
            "credit" => &self.credit,
            _ => &self.hold,
        }
    }
}

fn set_total(
    conn: &Connection,
    owner: &str,
    payment_type: &str,
    sum: Sum,
) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT OR REPLACE INTO cost_totals VALUES (?, ?, ?)")?
        .execute([owner, payment_type, &sum.total().to_fixed()])?;
    Ok(())
}

fn sum(conn: &Connection, owner: &str, payment_type: &str) -> Result<Sum, StoreError> {
    let total: Option<String> = conn
        .prepare_cached("SELECT total FROM cost_totals WHERE owner = ? AND payment_type = ?")?
        .query_row([owner, payment_type], |row| row.get(0))
        .optional()?;
    if let Some(total) = total {
        let mut sum = Sum::default();
        sum.add(&total);
        return Ok(sum);
    }
    // Costs from before there were totals; there is one as soon as anything changes.
    sum_of_rows(conn, owner, payment_type)
}

fn sum_of_rows(conn: &Connection, owner: &str, payment_type: &str) -> Result<Sum, StoreError> {
    let sql = format!(
        "SELECT {} FROM costs WHERE owner = ? AND payment_type = ?",
        amount_column(payment_type)
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([owner, payment_type])?;
    let mut sum = Sum::default();
    while let Some(row) = rows.next()? {
        sum.add(row.get_ref(0)?.as_str().unwrap_or_default());
    }
    Ok(sum)
}

/// Accounts whose total is not the sum over their costs, each with the way of paying.
pub fn wrong_totals(conn: &Connection) -> Result<Vec<(String, String)>, StoreError> {
    let mut statement = conn.prepare("SELECT owner, payment_type FROM cost_totals")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut wrong = Vec::new();
    for row in rows {
        let (owner, payment_type): (String, String) = row?;
        if sum(conn, &owner, &payment_type)? != sum_of_rows(conn, &owner, &payment_type)? {
            wrong.push((owner, payment_type));
        }
    }
    Ok(wrong)
}

/// The cost rows of a message.
pub fn costs_of_message(conn: &Connection, hash: &str) -> Result<Vec<Cost>, StoreError> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM costs WHERE item_hash = ? ORDER BY id"
    ))?;
    let rows = statement.query_map([hash], cost)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The column with the amount in one way of paying.
fn amount_column(payment_type: &str) -> &'static str {
    match payment_type {
        "superfluid" => "stream",
        "credit" => "credit",
        _ => "hold",
    }
}

/// What an account pays in one way, for everything it has.
pub fn charged(conn: &Connection, owner: &str, payment_type: &str) -> Result<Decimal, StoreError> {
    Ok(sum(conn, owner, payment_type)?.total())
}

/// A message an account pays for.
#[derive(Debug, Clone)]
pub struct Charged {
    /// The message.
    pub item_hash: String,
    /// Its type.
    pub kind: String,
    /// Its status: `processed` or `removing`.
    pub status: String,
    /// Its time, Unix seconds.
    pub time: f64,
    /// Bytes of its file, for a STORE.
    pub file_size: Option<i64>,
    /// What it costs: tokens to hold, tokens a second or credits a second.
    pub cost: Decimal,
}

/// Everything an account pays for in one way, in the order in which it was taken on.
pub fn charged_messages(
    conn: &Connection,
    owner: &str,
    payment_type: &str,
) -> Result<Vec<Charged>, StoreError> {
    let sql = format!(
        "SELECT costs.item_hash, m.type, m.status, m.time, files.size, {} FROM costs \
         JOIN messages m ON m.item_hash = costs.item_hash LEFT JOIN files ON files.hash = m.content_item_hash \
         WHERE costs.owner = ? AND costs.payment_type = ? ORDER BY costs.id",
        amount_column(payment_type)
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([owner, payment_type])?;
    let mut all: Vec<Charged> = Vec::new();
    let mut sum = Sum::default();
    while let Some(row) = rows.next()? {
        let item_hash: String = row.get(0)?;
        // The rows of a message are written together, so they follow one another.
        if all.last().is_none_or(|last| last.item_hash != item_hash) {
            sum = Sum::default();
            all.push(Charged {
                item_hash,
                kind: row.get(1)?,
                status: row.get(2)?,
                time: row.get(3)?,
                file_size: row.get(4)?,
                cost: Decimal::zero(),
            });
        }
        sum.add(row.get_ref(5)?.as_str().unwrap_or_default());
        if let Some(last) = all.last_mut() {
            last.cost = sum.total();
        }
    }
    Ok(all)
}

/// Which cost rows are summed up.
#[derive(Debug, Clone, Default)]
pub struct CostFilter {
    /// Who pays.
    pub owner: Option<String>,
    /// For which message.
    pub item_hash: Option<String>,
    /// How.
    pub payment_type: Option<String>,
}

impl CostFilter {
    fn conditions(&self) -> Conditions {
        let mut c = Conditions::default();
        for (sql, value) in [
            ("owner = ?", &self.owner),
            ("item_hash = ?", &self.item_hash),
            ("payment_type = ?", &self.payment_type),
        ] {
            if let Some(value) = value {
                c.with(sql, value.clone());
            }
        }
        c
    }
}

/// Sums over cost rows, in each way of paying.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CostSum {
    /// Messages.
    pub resources: u64,
    /// Tokens to hold.
    pub hold: Decimal,
    /// Tokens a second.
    pub stream: Decimal,
    /// Credits a second.
    pub credit: Decimal,
}

/// Sums over what the filter keeps.
pub fn sum_costs(conn: &Connection, filter: &CostFilter) -> Result<CostSum, StoreError> {
    let c = filter.conditions();
    let sql = format!("SELECT hold, stream, credit FROM costs{}", c.clause());
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(c.params().as_slice())?;
    let mut sums = [Sum::default(); 3];
    while let Some(row) = rows.next()? {
        for (index, sum) in sums.iter_mut().enumerate() {
            sum.add(row.get_ref(index)?.as_str().unwrap_or_default());
        }
    }
    let sql = format!("SELECT count(DISTINCT item_hash) FROM costs{}", c.clause());
    let resources: i64 = conn
        .prepare_cached(&sql)?
        .query_row(c.params().as_slice(), |row| row.get(0))?;
    let [hold, stream, credit] = sums.map(|sum| sum.total());
    Ok(CostSum {
        resources: resources.unsigned_abs(),
        hold,
        stream,
        credit,
    })
}

/// A page of the messages that cost something, by hash.
pub fn resources(
    conn: &Connection,
    filter: &CostFilter,
    page: Page,
) -> Result<Vec<String>, StoreError> {
    let c = filter.conditions();
    let sql = format!(
        "SELECT DISTINCT item_hash FROM costs{} ORDER BY item_hash{}",
        c.clause(),
        page.clause()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(c.params().as_slice(), |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A balance on one chain.
#[derive(Debug, Clone)]
pub struct Balance {
    /// The account.
    pub address: String,
    /// Chain.
    pub chain: String,
    /// Tokens.
    pub balance: String,
}

/// Balances of an account outside of decentralised applications.
pub fn balances(conn: &Connection, address: &str) -> Result<Vec<Balance>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT address, chain, balance FROM balances WHERE address = ? AND dapp = '' ORDER BY chain",
    )?;
    let rows = statement.query_map([address], |row| {
        Ok(Balance {
            address: row.get(0)?,
            chain: row.get(1)?,
            balance: row.get(2)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Tokens of an account on all chains, outside of decentralised applications.
pub fn total_balance(conn: &Connection, address: &str) -> Result<Decimal, StoreError> {
    Ok(balances(conn, address)?
        .iter()
        .filter_map(|row| row.balance.parse::<Decimal>().ok())
        .sum())
}

/// Sets a balance as known at block `height`, unless that block or a higher one is known already; `dapp` names the
/// decentralised application it lies in, if any. Tells whether the amount changed.
pub fn set_balance(
    conn: &Connection,
    address: &str,
    chain: &str,
    dapp: Option<&str>,
    balance: &str,
    height: i64,
) -> Result<bool, StoreError> {
    let before: Option<String> = conn
        .prepare_cached(
            "SELECT balance FROM balances WHERE address = ? AND chain = ? AND dapp = ?",
        )?
        .query_row([address, chain, dapp.unwrap_or_default()], |row| row.get(0))
        .optional()?;
    let written = conn
        .prepare_cached(
            "INSERT INTO balances (address, chain, dapp, balance, height) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (address, chain, dapp) DO UPDATE SET balance = excluded.balance, height = excluded.height \
             WHERE excluded.height > height OR excluded.height = 0 AND height = 0",
        )?
        .execute(params![address, chain, dapp.unwrap_or_default(), balance, height])?;
    Ok(written > 0 && before.as_deref() != Some(balance))
}

/// Which balances a list holds.
#[derive(Debug, Clone, Default)]
pub struct BalanceFilter {
    /// Chains; all when empty.
    pub chains: Vec<String>,
    /// Tokens at least.
    pub min_balance: f64,
}

/// Balances by address and chain, outside of decentralised applications, from after `after`; and how many there are.
pub fn all_balances(
    conn: &Connection,
    filter: &BalanceFilter,
    page: Page,
    after: Option<&(String, String)>,
) -> Result<(Vec<Balance>, u64), StoreError> {
    let mut c = Conditions::default();
    c.raw("dapp = ''");
    c.any("chain IN ({})", &filter.chains);
    if filter.min_balance > 0.0 {
        c.with("CAST(balance AS REAL) >= ?", filter.min_balance);
    }
    let total: i64 = conn
        .prepare_cached(&format!("SELECT count(*) FROM balances{}", c.clause()))?
        .query_row(c.params().as_slice(), |row| row.get(0))?;
    if let Some((address, chain)) = after {
        c.with_all(
            "(address, chain) > (?, ?)",
            [address.clone().into(), chain.clone().into()],
        );
    }
    let sql = format!(
        "SELECT address, chain, balance FROM balances{} ORDER BY address, chain{}",
        c.clause(),
        page.clause()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(c.params().as_slice(), |row| {
        Ok(Balance {
            address: row.get(0)?,
            chain: row.get(1)?,
            balance: row.get(2)?,
        })
    })?;
    Ok((rows.collect::<Result<_, _>>()?, total.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::open_writer;

    fn cost(owner: usize, message: u8, payment: usize, amount: i64) -> Cost {
        let amount = format!("{}.{:018}", amount / 1000, amount % 1000);
        Cost {
            // The same account in another spelling.
            owner: ["0xa", "0xA", "0xb"][owner].into(),
            item_hash: message.to_string(),
            kind: "STORAGE".into(),
            name: "storage".into(),
            reference: None,
            payment_type: ["hold", "superfluid", "credit"][payment].into(),
            hold: amount.clone(),
            stream: amount.clone(),
            credit: amount,
            size_mib: None,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn totals_are_the_sums_of_what_was_charged_and_not_taken_back(
            charged in prop::collection::vec((0_usize..3, 0_u8..5, 0_usize..3, 0_i64..1_000_000), 0..30),
            taken_back in prop::collection::vec(0_u8..5, 0..5),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let conn = open_writer(&dir.path().join("db")).unwrap();
            for (owner, message, payment, amount) in charged {
                insert_cost(&conn, &cost(owner, message, payment, amount)).unwrap();
            }
            for message in taken_back {
                remove_costs(&conn, &message.to_string()).unwrap();
            }
            prop_assert_eq!(wrong_totals(&conn).unwrap(), vec![]);
            for payment in ["hold", "superfluid", "credit"] {
                let rows = sum_of_rows(&conn, "0xa", payment).unwrap();
                prop_assert_eq!(charged_of(&conn, payment), rows.total());
            }
        }
    }

    fn charged_of(conn: &Connection, payment: &str) -> Decimal {
        charged(conn, "0XA", payment).unwrap()
    }
}
