//! The price list: the network's `pricing` aggregate over the built-in default.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::Decimal;

/// What can be bought. The words are the keys of the aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Product {
    /// A program started on demand.
    Program,
    /// A program kept running.
    ProgramPersistent,
    /// A virtual private server.
    Instance,
    /// A confidential virtual private server, and a verifiable program.
    InstanceConfidential,
    /// A server with GPUs for consumers.
    InstanceGpuStandard,
    /// A server with GPUs for data centres.
    InstanceGpuPremium,
    /// A stored file.
    Storage,
}

impl Product {
    /// Every product this node prices.
    pub const ALL: [Self; 7] = [
        Self::Program,
        Self::ProgramPersistent,
        Self::Instance,
        Self::InstanceConfidential,
        Self::InstanceGpuStandard,
        Self::InstanceGpuPremium,
        Self::Storage,
    ];

    /// Key in the aggregate.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::ProgramPersistent => "program_persistent",
            Self::Instance => "instance",
            Self::InstanceConfidential => "instance_confidential",
            Self::InstanceGpuStandard => "instance_gpu_standard",
            Self::InstanceGpuPremium => "instance_gpu_premium",
            Self::Storage => "storage",
        }
    }
}

/// One price in each way of paying.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rates {
    /// Tokens to hold.
    pub hold: Decimal,
    /// Tokens an hour.
    pub stream: Decimal,
    /// Credits an hour.
    pub credit: Decimal,
}

/// What one compute unit comprises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComputeUnit {
    /// Virtual CPUs.
    pub vcpus: u64,
    /// Disk included in the price, MiB.
    pub disk_mib: u64,
    /// Memory, MiB.
    pub memory_mib: u64,
}

/// The price of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductPrice {
    /// Per MiB of storage.
    pub storage: Rates,
    /// Per compute unit.
    pub compute: Rates,
    /// What a compute unit is; none for what is only stored.
    pub unit: Option<ComputeUnit>,
    /// Compute units of each model of GPU, for products with GPUs.
    pub gpus: BTreeMap<String, u64>,
}

/// A price list with an entry for every product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prices(BTreeMap<Product, ProductPrice>);

/// A price list that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pricing.{path}: {reason}")]
pub struct PriceError {
    /// Where in the aggregate.
    pub path: String,
    /// What is wrong.
    pub reason: &'static str,
}

static DEFAULT: LazyLock<Value> = LazyLock::new(build_default);

/// The built-in `pricing` aggregate: hold is tokens, payg tokens an hour, credit credits an hour.
pub fn default_price_aggregate() -> Value {
    DEFAULT.clone()
}

fn build_default() -> Value {
    const STORAGE_CREDIT: &str = "0.17967489030626108";
    const PAYG: &str = "0.000000977";
    let tiers = || -> Value {
        let units = [1, 2, 4, 6, 8, 12];
        units
            .iter()
            .enumerate()
            .map(|(index, units)| json!({"id": format!("tier-{}", index + 1), "compute_units": units}))
            .collect()
    };
    let rates = |holding: &str, payg: &str, credit: &str| json!({"holding": holding, "payg": payg, "credit": credit});
    let unit = |disk_mib: u64, memory_mib: u64| json!({"vcpus": 1, "disk_mib": disk_mib, "memory_mib": memory_mib});
    let machine = |storage: Value, compute: Value, disk_mib: u64| json!({"price": {"storage": storage, "compute_unit": compute}, "tiers": tiers(), "compute_unit": unit(disk_mib, 2048)});
    let gpu = |compute: Value, cards: &[(u64, u64, &str)]| {
        let tiers: Vec<Value> = cards
            .iter()
            .enumerate()
            .map(|(index, (units, gib, model))| {
                json!({"id": format!("tier-{}", index + 1), "compute_units": units, "vram": gib * 1024, "model": model})
            })
            .collect();
        json!({
            "price": {"storage": {"payg": PAYG, "credit": STORAGE_CREDIT}, "compute_unit": compute},
            "tiers": tiers,
            "compute_unit": unit(61440, 6144),
        })
    };
    let stored = || json!({"holding": "0.333333333", "credit": STORAGE_CREDIT});
    json!({
        "program": machine(rates("0.05", PAYG, "0.977"), rates("200", "0.011", "11000"), 2048),
        "program_persistent": machine(rates("0.05", PAYG, "0.977"), rates("1000", "0.055", "55000"), 20480),
        "instance": machine(rates("0.05", PAYG, STORAGE_CREDIT), rates("1000", "0.055", "14250"), 20480),
        "instance_confidential": machine(rates("0.05", PAYG, STORAGE_CREDIT), rates("2000", "0.11", "28500"), 20480),
        "instance_gpu_standard": gpu(rates("280", "0.28", "43125"), &[
            (3, 20, "RTX 4000 ADA"), (4, 24, "RTX 3090"), (6, 24, "RTX 4090"), (12, 48, "L40S"),
        ]),
        "instance_gpu_premium": gpu(rates("560", "0.56", "86250"), &[(16, 80, "A100"), (24, 80, "H100")]),
        "storage": {"price": {"storage": stored()}},
        "web3_hosting": {"price": {"fixed": 50, "storage": stored()}},
    })
}

impl Default for Prices {
    fn default() -> Self {
        // The built-in list is read like any other; its completeness is tested.
        Self::read(&DEFAULT, &Value::Null).unwrap_or_else(|_| Self(BTreeMap::new()))
    }
}

impl Prices {
    /// Reads the content of the `pricing` aggregate; products it does not name keep their built-in price.
    ///
    /// # Errors
    /// When a price is not a number.
    pub fn from_aggregate(aggregate: &Value) -> Result<Self, PriceError> {
        Self::read(aggregate, &DEFAULT)
    }

    fn read(aggregate: &Value, fallback: &Value) -> Result<Self, PriceError> {
        Product::ALL
            .into_iter()
            .map(|product| {
                let key = product.key();
                let entry = aggregate
                    .get(key)
                    .filter(|entry| entry.is_object())
                    .or_else(|| fallback.get(key));
                let missing = || PriceError {
                    path: key.to_owned(),
                    reason: "is missing",
                };
                let price =
                    ProductPrice::read(entry.ok_or_else(missing)?).map_err(|(path, reason)| {
                        PriceError {
                            path: format!("{key}.{path}"),
                            reason,
                        }
                    })?;
                Ok((product, price))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The price of a product.
    pub fn of(&self, product: Product) -> Option<&ProductPrice> {
        self.0.get(&product)
    }
}

type ReadError = (&'static str, &'static str);

impl ProductPrice {
    fn read(entry: &Value) -> Result<Self, ReadError> {
        let empty = Map::new();
        let price = entry
            .get("price")
            .and_then(Value::as_object)
            .unwrap_or(&empty);
        let unit = entry.get("compute_unit").filter(|unit| unit.is_object());
        Ok(Self {
            storage: Rates::read(price.get("storage"))
                .map_err(|reason| ("price.storage", reason))?,
            compute: Rates::read(price.get("compute_unit"))
                .map_err(|reason| ("price.compute_unit", reason))?,
            unit: unit
                .map(ComputeUnit::read)
                .transpose()
                .map_err(|reason| ("compute_unit", reason))?,
            gpus: entry
                .get("tiers")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|tier| {
                    let units = tier.get("compute_units")?.as_u64()?;
                    Some((tier.get("model")?.as_str()?.to_owned(), units))
                })
                .collect(),
        })
    }
}

impl Rates {
    /// The rates a second of rates an hour; what is held is not by time. Kept to 28 digits, as the network multiplies it.
    pub fn by_second(&self) -> Self {
        const SECONDS_PER_HOUR: u32 = 3600;
        Self {
            hold: self.hold.clone(),
            stream: self.stream.over(SECONDS_PER_HOUR),
            credit: self.credit.over(SECONDS_PER_HOUR),
        }
    }

    fn read(value: Option<&Value>) -> Result<Self, &'static str> {
        let rate = |name| match value.and_then(|rates| rates.get(name)) {
            None | Some(Value::Null) => Ok(Decimal::zero()),
            Some(rate) => number(rate),
        };
        Ok(Self {
            hold: rate("holding")?,
            stream: rate("payg")?,
            credit: rate("credit")?,
        })
    }
}

impl ComputeUnit {
    fn read(value: &Value) -> Result<Self, &'static str> {
        let whole = |name| {
            value
                .get(name)
                .and_then(Value::as_u64)
                .filter(|n| *n > 0)
                .ok_or("needs whole numbers")
        };
        Ok(Self {
            vcpus: whole("vcpus")?,
            disk_mib: whole("disk_mib")?,
            memory_mib: whole("memory_mib")?,
        })
    }
}

/// Decimals are written as text; numbers occur in hand-made lists.
fn number(value: &Value) -> Result<Decimal, &'static str> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return Err("is not a number"),
    };
    text.parse().map_err(|_| "is not a decimal number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_list_is_complete() {
        let prices = Prices::default();
        for product in Product::ALL {
            assert!(prices.of(product).is_some(), "{product:?}");
        }
        assert_eq!(Prices::from_aggregate(&json!({})), Ok(prices));
    }

    #[test]
    fn an_aggregate_replaces_the_products_it_names() {
        let aggregate = json!({"storage": {"price": {"storage": {"holding": 2, "credit": "0.5"}}}});
        let prices = Prices::from_aggregate(&aggregate).unwrap();
        assert_eq!(
            prices.of(Product::Storage).unwrap().storage.hold,
            Decimal::from(2_u64)
        );
        assert_eq!(
            prices.of(Product::Instance),
            Prices::default().of(Product::Instance)
        );
        let error =
            Prices::from_aggregate(&json!({"storage": {"price": {"storage": {"credit": "many"}}}}))
                .unwrap_err();
        assert_eq!(
            error.to_string(),
            "pricing.storage.price.storage: is not a decimal number"
        );
    }
}
