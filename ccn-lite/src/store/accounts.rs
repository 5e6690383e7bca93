//! Balances, credit lots and the cost rows charged to accounts. Amounts of tokens are decimal text.

use rusqlite::{Connection, Row, params};

use super::StoreError;

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
    Ok(())
}

/// The cost rows of a message.
pub fn costs_of_message(conn: &Connection, hash: &str) -> Result<Vec<Cost>, StoreError> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM costs WHERE item_hash = ? ORDER BY id"
    ))?;
    let rows = statement.query_map([hash], cost)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The cost rows an account pays in one way.
pub fn costs_of_owner(
    conn: &Connection,
    owner: &str,
    payment_type: &str,
) -> Result<Vec<Cost>, StoreError> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM costs WHERE owner = ? AND payment_type = ? ORDER BY id"
    ))?;
    let rows = statement.query_map([owner, payment_type], cost)?;
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

/// Sets a balance as known at block `height`, unless a higher block is known.
pub fn set_balance(
    conn: &Connection,
    address: &str,
    chain: &str,
    balance: &str,
    height: i64,
) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO balances (address, chain, balance, height) VALUES (?, ?, ?, ?) \
         ON CONFLICT (address, chain, dapp) DO UPDATE SET balance = excluded.balance, height = excluded.height \
         WHERE excluded.height > height OR excluded.height = 0 AND height = 0",
    )?
    .execute(params![address, chain, balance, height])?;
    Ok(())
}

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

/// Lots of an account, oldest first.
pub fn lots(conn: &Connection, address: &str) -> Result<Vec<Lot>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT address, credit_ref, credit_index, amount, remaining, expiration, message_time, payment_method \
         FROM credit_lots WHERE address = ? ORDER BY message_time, credit_ref, credit_index",
    )?;
    let rows = statement.query_map([address], |row| {
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
    })?;
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
pub fn credit_balance(conn: &Connection, address: &str, now: f64) -> Result<i64, StoreError> {
    Ok(conn
        .prepare_cached(
            "SELECT coalesce(sum(remaining), 0) FROM credit_lots WHERE address = ? \
             AND (expiration IS NULL OR expiration > ?)",
        )?
        .query_row(params![address, now], |row| row.get(0))?)
}
