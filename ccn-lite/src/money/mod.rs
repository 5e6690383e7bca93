//! What messages cost, in tokens to hold, tokens a second and credits a second. Pure functions over fixed-point decimals;
//! amounts must be equal to the last digit on every node, so no float takes part.
//!
//! Comes in: a content, the price list, the sizes of the files it refers to. Goes out: cost rows, and whether the way of
//! paying is still allowed.

mod costs;
mod decimal;
mod gpus;
mod machine;
mod prices;
mod render;
mod rules;
mod volume;

pub use costs::{
    CostError, CostRow, CostType, SECONDS_PER_DAY, SizeOf, Tariff, costs, required_credits, stored,
    total,
};
pub use decimal::{Decimal, ParseDecimalError, Sum};
pub use gpus::CompatibleGpus;
pub use prices::{
    ComputeUnit, PriceError, Prices, Product, ProductPrice, Rates, default_price_aggregate,
};
pub use render::{detail_json, price_json, take_estimated_sizes};
pub use rules::{check_payment_method, is_free, payment_type};
