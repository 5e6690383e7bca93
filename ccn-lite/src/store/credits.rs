//! Credits: lots that were granted, and the history of everything that happened to them.

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params, params_from_iter};

use super::{Conditions, Page, StoreError};

/// A lot of credits.
#[derive(Debug, Clone)]
pub struct Lot {
    /// The account.
    pub address: String,
    /// What granted it.
    pub credit_ref: String,
    /// Position in that grant.
    pub credit_index: i64,
    /// Credits granted.
    pub amount: i64,
    /// Credits left.
    pub remaining: i64,
    /// Unix seconds.
    pub expiration: Option<f64>,
    /// Unix seconds of the grant.
    pub message_time: f64,
    /// How it was paid for.
    pub payment_method: Option<String>,
}

fn lot(row: &Row<'_>) -> rusqlite::Result<Lot> {
    Ok(Lot {
        address: row.get(0)?,
        credit_ref: row.get(1)?,
        credit_index: row.get(2)?,
        amount: row.get(3)?,
        remaining: row.get(4)?,
        expiration: row.get(5)?,
        message_time: row.get(6)?,
        payment_method: row.get(7)?,
    })
}

/// Lots of an account, in the order in which they are spent: oldest first.
pub fn lots(conn: &Connection, address: &str) -> Result<Vec<Lot>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT address, credit_ref, credit_index, amount, remaining, expiration, message_time, payment_method \
         FROM credit_lots WHERE address = ? ORDER BY message_time, credit_ref, credit_index",
    )?;
    let rows = statement.query_map([address], lot)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Grants a lot once; the same grant again changes nothing.
pub fn grant(conn: &Connection, lot: &Lot) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT OR IGNORE INTO credit_lots VALUES (?,?,?,?,?,?,?,?)")?
        .execute(params![
            lot.address,
            lot.credit_ref,
            lot.credit_index,
            lot.amount,
            lot.remaining,
            lot.expiration,
            lot.message_time,
            lot.payment_method
        ])?;
    Ok(())
}

/// Credits an account can spend at `now`.
pub fn balance(conn: &Connection, address: &str, now: f64) -> Result<i64, StoreError> {
    Ok(conn
        .prepare_cached(
            "SELECT coalesce(sum(remaining), 0) FROM credit_lots WHERE address = ? \
             AND (expiration IS NULL OR expiration > ?)",
        )?
        .query_row(params![address, now], |row| row.get(0))?)
}

/// Part of a lot that was spent.
#[derive(Debug, Clone, PartialEq)]
pub struct Portion {
    /// Credits.
    pub amount: i64,
    /// When the lot would have expired, Unix seconds.
    pub expiration: Option<f64>,
}

/// Takes up to `amount` from the lots that exist and are valid at `time`, oldest first; returns the portions.
pub fn spend(
    conn: &Connection,
    address: &str,
    amount: i64,
    time: f64,
) -> Result<Vec<Portion>, StoreError> {
    let mut left = amount;
    let mut portions = Vec::new();
    for lot in lots(conn, address)? {
        let valid =
            lot.message_time <= time && lot.expiration.is_none_or(|expiration| expiration > time);
        let portion = lot.remaining.min(left);
        if !valid || portion <= 0 {
            continue;
        }
        conn.prepare_cached(
            "UPDATE credit_lots SET remaining = remaining - ? WHERE credit_ref = ? AND credit_index = ?",
        )?
        .execute(params![portion, lot.credit_ref, lot.credit_index])?;
        portions.push(Portion {
            amount: portion,
            expiration: lot.expiration,
        });
        left -= portion;
        if left == 0 {
            break;
        }
    }
    Ok(portions)
}

/// Accounts with credits that expired after `from` and not after `to`.
pub fn expired(conn: &Connection, from: f64, to: f64) -> Result<Vec<String>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT DISTINCT address FROM credit_lots WHERE expiration > ? AND expiration <= ? AND remaining > 0",
    )?;
    let rows = statement.query_map([from, to], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Something that happened to an account's credits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry {
    /// The account.
    pub address: String,
    /// Credits gained, or lost when negative.
    pub amount: i64,
    /// The message.
    pub credit_ref: String,
    /// Position in the message.
    pub credit_index: i64,
    /// Price of a credit, a decimal number.
    pub price: Option<String>,
    /// Credits given on top, as they were written.
    pub bonus_amount: Option<String>,
    /// Transaction that paid; of an expense, the node that earned.
    pub tx_hash: Option<String>,
    /// Token it was paid in.
    pub token: Option<String>,
    /// Chain it was paid on.
    pub chain: Option<String>,
    /// Who took the payment.
    pub provider: Option<String>,
    /// What it is about: the execution of an expense, the other side of a transfer.
    pub origin: Option<String>,
    /// More about that.
    pub origin_ref: Option<String>,
    /// How it was paid, or `credit_expense` or `credit_transfer`.
    pub payment_method: Option<String>,
    /// When the credits end, Unix seconds.
    pub expiration: Option<f64>,
    /// Time of the message, Unix seconds.
    pub message_time: f64,
    /// How many things an expense sums up.
    pub expense_count: Option<i64>,
    /// Size of what an expense is for, MiB.
    pub expense_size_mib: Option<f64>,
}

const ENTRY: &str = "address, amount, credit_ref, credit_index, price, bonus_amount, tx_hash, token, chain, provider, origin, \
     origin_ref, payment_method, expiration, message_time, expense_count, expense_size_mib";

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        address: row.get(0)?,
        amount: row.get(1)?,
        credit_ref: row.get(2)?,
        credit_index: row.get(3)?,
        price: row.get(4)?,
        bonus_amount: row.get(5)?,
        tx_hash: row.get(6)?,
        token: row.get(7)?,
        chain: row.get(8)?,
        provider: row.get(9)?,
        origin: row.get(10)?,
        origin_ref: row.get(11)?,
        payment_method: row.get(12)?,
        expiration: row.get(13)?,
        message_time: row.get(14)?,
        expense_count: row.get(15)?,
        expense_size_mib: row.get(16)?,
    })
}

/// Writes down what happened; the same again changes nothing.
pub fn record(conn: &Connection, e: &Entry) -> Result<(), StoreError> {
    conn.prepare_cached(&format!(
        "INSERT OR IGNORE INTO credit_history ({ENTRY}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
    ))?
    .execute(params![
        e.address,
        e.amount,
        e.credit_ref,
        e.credit_index,
        e.price,
        e.bonus_amount,
        e.tx_hash,
        e.token,
        e.chain,
        e.provider,
        e.origin,
        e.origin_ref,
        e.payment_method,
        e.expiration,
        e.message_time,
        e.expense_count,
        e.expense_size_mib
    ])?;
    Ok(())
}

/// Which entries of an account's history a list holds.
#[derive(Debug, Clone, Default)]
pub struct HistoryFilter {
    /// Columns that must have a value: `tx_hash`, `token`, `chain`, `provider`, `origin`, `origin_ref`, `payment_method`.
    pub equal: Vec<(&'static str, String)>,
    /// A way of paying to leave out.
    pub exclude_payment_method: Option<String>,
    /// Whether the credits expire at all.
    pub has_expiration: Option<bool>,
    /// Not before, Unix seconds.
    pub start: Option<f64>,
    /// Not after, Unix seconds.
    pub end: Option<f64>,
    /// Only what came in, or only what went out.
    pub incoming: Option<bool>,
    /// Types of the messages expenses are for, in capitals.
    pub resource_types: Vec<String>,
    /// The message expenses are for.
    pub resource: Option<String>,
}

impl HistoryFilter {
    fn conditions(&self, address: &str) -> Conditions {
        let mut c = Conditions::default();
        c.with("address = ?", address.to_owned());
        for (column, value) in &self.equal {
            c.with(&format!("{column} = ?"), value.clone());
        }
        if let Some(method) = &self.exclude_payment_method {
            c.with(
                "(payment_method IS NULL OR payment_method <> ?)",
                method.clone(),
            );
        }
        match self.has_expiration {
            Some(true) => c.raw("expiration IS NOT NULL"),
            Some(false) => c.raw("expiration IS NULL"),
            None => {}
        }
        if let Some(start) = self.start {
            c.with("message_time >= ?", start);
        }
        if let Some(end) = self.end {
            c.with("message_time <= ?", end);
        }
        match self.incoming {
            Some(true) => c.raw("amount > 0"),
            Some(false) => c.raw("amount < 0"),
            None => {}
        }
        if let Some(resource) = &self.resource {
            c.with(
                "payment_method = 'credit_expense' AND coalesce(origin, origin_ref) = ?",
                resource.clone(),
            );
        }
        c.any(
            "payment_method = 'credit_expense' AND EXISTS (SELECT 1 FROM \
             (SELECT item_hash, type FROM messages UNION ALL SELECT item_hash, type FROM gone) \
             WHERE item_hash = coalesce(origin, origin_ref) AND type IN ({}))",
            &self.resource_types,
        );
        c
    }
}

/// How a history is sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HistoryOrder {
    /// By the time of the message.
    #[default]
    Time,
    /// By credits.
    Amount,
    /// By when the credits end; those that do not come last.
    Expiration,
}

impl HistoryOrder {
    const fn column(self) -> &'static str {
        match self {
            Self::Time => "message_time",
            Self::Amount => "amount",
            Self::Expiration => "coalesce(expiration, 9e99)",
        }
    }
}

/// Where a history continues: after the entry with this sort value, message and position.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryAfter {
    /// Value of the sort column.
    pub value: f64,
    /// `credit_ref`.
    pub credit_ref: String,
    /// `credit_index`.
    pub credit_index: i64,
}

/// A page of an account's history.
pub fn history(
    conn: &Connection,
    address: &str,
    filter: &HistoryFilter,
    order: HistoryOrder,
    ascending: bool,
    page: Page,
    after: Option<&HistoryAfter>,
) -> Result<Vec<Entry>, StoreError> {
    let c = filter.conditions(address);
    let column = order.column();
    let (direction, op) = if ascending {
        ("ASC", ">")
    } else {
        ("DESC", "<")
    };
    let mut params: Vec<Value> = c.values().to_vec();
    let from = match after {
        None => String::new(),
        Some(after) => {
            params.extend([
                after.value.into(),
                after.credit_ref.clone().into(),
                after.credit_index.into(),
            ]);
            format!(" AND ({column}, credit_ref, credit_index) {op} (?, ?, ?)")
        }
    };
    let sql = format!(
        "SELECT {ENTRY} FROM credit_history{}{from} \
         ORDER BY {column} {direction}, credit_ref {direction}, credit_index {direction}{}",
        c.clause(),
        page.clause()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(params), entry)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Sums over a history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Entries.
    pub entries: i64,
    /// Credits that came in.
    pub incoming: i64,
    /// Credits that went out, not negative.
    pub outgoing: i64,
}

/// Sums over what the filter keeps.
pub fn summary(
    conn: &Connection,
    address: &str,
    filter: &HistoryFilter,
) -> Result<Summary, StoreError> {
    let c = filter.conditions(address);
    let sql = format!(
        "SELECT count(*), coalesce(sum(max(amount, 0)), 0), coalesce(sum(max(-amount, 0)), 0) FROM credit_history{}",
        c.clause()
    );
    Ok(conn
        .prepare_cached(&sql)?
        .query_row(c.params().as_slice(), |row| {
            Ok(Summary {
                entries: row.get(0)?,
                incoming: row.get(1)?,
                outgoing: row.get(2)?,
            })
        })?)
}

/// Credits that expenses took for a message.
pub fn consumed(conn: &Connection, item_hash: &str) -> Result<i64, StoreError> {
    Ok(conn
        .prepare_cached(
            "SELECT coalesce(sum(-amount), 0) FROM credit_history \
             WHERE payment_method = 'credit_expense' AND coalesce(origin, origin_ref) = ?",
        )?
        .query_row([item_hash], |row| row.get(0))?)
}

/// Credits that expenses took from an account, or for a message, or altogether.
pub fn consumed_by(
    conn: &Connection,
    address: Option<&str>,
    item_hash: Option<&str>,
) -> Result<i64, StoreError> {
    let mut c = Conditions::default();
    c.raw("payment_method = 'credit_expense'");
    if let Some(address) = address {
        c.with("address = ?", address.to_owned());
    }
    if let Some(item_hash) = item_hash {
        c.with("coalesce(origin, origin_ref) = ?", item_hash.to_owned());
    }
    let sql = format!(
        "SELECT coalesce(sum(-amount), 0) FROM credit_history{}",
        c.clause()
    );
    Ok(conn
        .prepare_cached(&sql)?
        .query_row(c.params().as_slice(), |row| row.get(0))?)
}

/// Accounts and the credits they can spend at `now`, by address; those with at least `min`, from after `after`.
pub fn all(
    conn: &Connection,
    now: f64,
    min: i64,
    page: Page,
    after: Option<&str>,
) -> Result<(Vec<(String, i64)>, u64), StoreError> {
    const GROUPS: &str = "SELECT min(address) AS address, sum(CASE WHEN expiration IS NULL OR expiration > ?1 \
         THEN remaining ELSE 0 END) AS credits FROM credit_lots GROUP BY address HAVING credits >= ?2";
    let total: i64 = conn
        .prepare_cached(&format!("SELECT count(*) FROM ({GROUPS})"))?
        .query_row(params![now, min], |row| row.get(0))?;
    let sql = format!(
        "SELECT address, credits FROM ({GROUPS}) WHERE address > ?3 COLLATE NOCASE \
         ORDER BY address COLLATE NOCASE{}",
        page.clause()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(params![now, min, after.unwrap_or_default()], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    Ok((rows.collect::<Result<_, _>>()?, total.unsigned_abs()))
}
