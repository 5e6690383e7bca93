//! The cost rows of a message.

use aleph_message::{
    Body, Content, Executable, ItemHash, MachineResources, PaymentType, VolumeSource,
};

use super::{Decimal, Prices, Product, ProductPrice, Rates};

/// Credits must last this long when something is created.
pub const SECONDS_PER_DAY: u64 = 86_400;

/// A file is charged for at least this much when paid with credits, MiB.
const MIN_CREDIT_STORE_MIB: u64 = 25;

const SECONDS_PER_HOUR: u32 = 3600;

/// What a row is for; the spelling is the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum CostType {
    Execution,
    InstanceRootfs,
    ProgramCode,
    ProgramRuntime,
    ProgramData,
    VolumeImmutable,
    VolumePersistent,
    VolumeDiscount,
    Storage,
}

impl CostType {
    /// The wire word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Execution => "EXECUTION",
            Self::InstanceRootfs => "EXECUTION_INSTANCE_VOLUME_ROOTFS",
            Self::ProgramCode => "EXECUTION_PROGRAM_VOLUME_CODE",
            Self::ProgramRuntime => "EXECUTION_PROGRAM_VOLUME_RUNTIME",
            Self::ProgramData => "EXECUTION_PROGRAM_VOLUME_DATA",
            Self::VolumeImmutable => "EXECUTION_VOLUME_INMUTABLE",
            Self::VolumePersistent => "EXECUTION_VOLUME_PERSISTENT",
            Self::VolumeDiscount => "EXECUTION_VOLUME_DISCOUNT",
            Self::Storage => "STORAGE",
        }
    }
}

/// A line of what a message costs, in every way of paying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostRow {
    /// What it is for.
    pub cost_type: CostType,
    /// Shown name.
    pub name: String,
    /// The STORE message it is for.
    pub reference: Option<String>,
    /// Tokens to hold.
    pub hold: Decimal,
    /// Tokens a second.
    pub stream: Decimal,
    /// Credits a second.
    pub credit: Decimal,
    /// Size it was computed from, MiB.
    pub size_mib: Option<Decimal>,
}

impl CostRow {
    /// The amount in one way of paying.
    pub fn amount(&self, payment: PaymentType) -> &Decimal {
        match payment {
            PaymentType::Hold => &self.hold,
            PaymentType::Superfluid => &self.stream,
            PaymentType::Credit => &self.credit,
        }
    }
}

/// A message this node cannot price.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CostError {
    /// GPUs.
    #[error("this node has no prices for GPUs")]
    Gpu,
    /// The price list lacks the product.
    #[error("the price list has no {0}")]
    Unpriced(&'static str),
}

/// The sum of the rows in one way of paying: tokens to hold, tokens a second, or credits a second.
pub fn total(rows: &[CostRow], payment: PaymentType) -> Decimal {
    rows.iter().map(|row| row.amount(payment).clone()).sum()
}

/// Credits an account must own to spend `per_second` for a day. Not rounded: it is compared as it is.
pub fn required_credits(per_second: &Decimal) -> Decimal {
    per_second.times(&Decimal::from(SECONDS_PER_DAY))
}

/// The cost rows of a content; none for types that cost nothing. `size_of(ref, use_latest)` is the size in bytes of the
/// file a STORE message (or, for a STORE content, the file hash itself) stands for; files it does not know are left out.
///
/// # Errors
/// For contents this node has no price for.
pub fn costs(
    content: &Content,
    payment: PaymentType,
    prices: &Prices,
    size_of: &dyn Fn(&ItemHash, bool) -> Option<u64>,
) -> Result<Vec<CostRow>, CostError> {
    let price_of = |product: Product| prices.of(product).ok_or(CostError::Unpriced(product.key()));
    match &content.body {
        Body::Store(store) => {
            let price = price_of(Product::Storage)?;
            let Some(bytes) = size_of(&store.item_hash, false) else {
                return Ok(Vec::new());
            };
            Ok(vec![stored(&price.storage, bytes, payment)])
        }
        Body::Program(program) => {
            let persistent = program.is_persistent();
            let product = if persistent {
                Product::ProgramPersistent
            } else {
                Product::Program
            };
            let multiplier = if !persistent && program.environment.internet {
                2
            } else {
                1
            };
            let file = |cost_type, reference, use_latest| {
                Volume::file(cost_type, reference, use_latest, size_of)
            };
            let mut volumes = vec![
                file(
                    CostType::ProgramCode,
                    &program.code.reference,
                    program.code.use_latest,
                ),
                file(
                    CostType::ProgramRuntime,
                    &program.runtime.reference,
                    program.runtime.use_latest,
                ),
            ];
            if let Some(data) = &program.data {
                volumes.push(file(
                    CostType::ProgramData,
                    &data.reference,
                    data.use_latest.unwrap_or(false),
                ));
            }
            let volumes = volumes
                .into_iter()
                .flatten()
                .chain(extra_volumes(&program.executable, size_of));
            machine(
                product,
                price_of(product)?,
                multiplier,
                &program.executable.resources,
                volumes.collect(),
                payment,
            )
        }
        Body::Instance(instance) => {
            let gpus = instance
                .executable
                .requirements
                .as_ref()
                .and_then(|requirements| requirements.gpu.as_ref());
            let trusted = instance.environment.trusted_execution.as_ref();
            if gpus.is_some_and(|gpus| !gpus.is_empty())
                || trusted.is_some_and(|trusted| trusted.gpu.is_some())
            {
                return Err(CostError::Gpu);
            }
            let product = if trusted.is_some() {
                Product::InstanceConfidential
            } else {
                Product::Instance
            };
            let rootfs = Volume {
                cost_type: CostType::InstanceRootfs,
                name: CostType::InstanceRootfs.as_str().to_owned(),
                reference: Some(instance.rootfs.parent.reference.to_string()),
                size_mib: instance.rootfs.size_mib.into(),
            };
            let volumes =
                std::iter::once(rootfs).chain(extra_volumes(&instance.executable, size_of));
            machine(
                product,
                price_of(product)?,
                1,
                &instance.executable.resources,
                volumes.collect(),
                payment,
            )
        }
        // Verified volumes cost nothing.
        Body::VerifiableProgram(program) => machine(
            Product::InstanceConfidential,
            price_of(Product::InstanceConfidential)?,
            1,
            &program.resources,
            Vec::new(),
            payment,
        ),
        Body::Post(_) | Body::Aggregate(_) | Body::Forget(_) => Ok(Vec::new()),
    }
}

fn stored(rates: &Rates, bytes: u64, payment: PaymentType) -> CostRow {
    let mut size_mib = Decimal::mib_of_bytes(bytes);
    if payment == PaymentType::Credit {
        size_mib = size_mib.max(MIN_CREDIT_STORE_MIB.into());
    }
    Volume {
        cost_type: CostType::Storage,
        name: CostType::Storage.as_str().to_owned(),
        reference: None,
        size_mib,
    }
    .row(rates, payment)
}

struct Volume {
    cost_type: CostType,
    name: String,
    reference: Option<String>,
    size_mib: Decimal,
}

impl Volume {
    fn file(
        cost_type: CostType,
        reference: &ItemHash,
        use_latest: bool,
        size_of: &dyn Fn(&ItemHash, bool) -> Option<u64>,
    ) -> Option<Self> {
        let bytes = size_of(reference, use_latest)?;
        Some(Self {
            cost_type,
            name: cost_type.as_str().to_owned(),
            reference: Some(reference.to_string()),
            size_mib: Decimal::mib_of_bytes(bytes),
        })
    }

    fn row(self, rates: &Rates, payment: PaymentType) -> CostRow {
        let credit = per_second(&self.size_mib.times(&rates.credit)).floored();
        CostRow {
            cost_type: self.cost_type,
            name: self.name,
            reference: self.reference,
            hold: self.size_mib.times(&rates.hold).floored(),
            stream: per_second(&self.size_mib.times(&rates.stream)).floored(),
            credit: at_least_one_an_hour(credit, payment),
            size_mib: Some(self.size_mib),
        }
    }
}

fn per_second(hourly: &Decimal) -> Decimal {
    hourly.over(SECONDS_PER_HOUR)
}

/// Whoever pays with credits pays at least one an hour for each row.
fn at_least_one_an_hour(credit: Decimal, payment: PaymentType) -> Decimal {
    if payment == PaymentType::Credit {
        credit.max(per_second(&Decimal::from(1_u64)).floored())
    } else {
        credit
    }
}

fn extra_volumes<'a>(
    executable: &'a Executable,
    size_of: &'a dyn Fn(&ItemHash, bool) -> Option<u64>,
) -> impl Iterator<Item = Volume> + 'a {
    executable
        .volumes
        .iter()
        .enumerate()
        .filter_map(move |(index, volume)| {
            let mut priced = match &volume.source {
                VolumeSource::Immutable {
                    reference,
                    use_latest,
                } => Volume::file(CostType::VolumeImmutable, reference, *use_latest, size_of)?,
                VolumeSource::Ephemeral { size_mib, .. }
                | VolumeSource::Persistent { size_mib, .. } => Volume {
                    cost_type: CostType::VolumePersistent,
                    name: String::new(),
                    reference: None,
                    size_mib: (*size_mib).into(),
                },
            };
            let label = volume.mount.as_deref().unwrap_or(priced.cost_type.as_str());
            priced.name = format!("#{index}:{label}");
            Some(priced)
        })
}

fn machine(
    product: Product,
    price: &ProductPrice,
    multiplier: u64,
    resources: &MachineResources,
    volumes: Vec<Volume>,
    payment: PaymentType,
) -> Result<Vec<CostRow>, CostError> {
    let unit = price
        .unit
        .as_ref()
        .ok_or(CostError::Unpriced(product.key()))?;
    let units = u64::from(resources.vcpus).max(resources.memory.div_ceil(unit.memory_mib));
    let charged = Decimal::from(units * multiplier);
    let execution = CostRow {
        cost_type: CostType::Execution,
        name: product.key().to_owned(),
        reference: None,
        hold: charged.times(&price.compute.hold).floored(),
        stream: per_second(&charged.times(&price.compute.stream)).floored(),
        credit: at_least_one_an_hour(
            per_second(&charged.times(&price.compute.credit)).floored(),
            payment,
        ),
        size_mib: None,
    };
    let volumes: Vec<CostRow> = volumes
        .into_iter()
        .map(|volume| volume.row(&price.storage, payment))
        .collect();
    let included = Decimal::from(units * unit.disk_mib);
    let discount = |payment: PaymentType, rate: Decimal| {
        total(&volumes, payment)
            .min(included.times(&rate))
            .negated()
            .floored()
    };
    let discount = CostRow {
        cost_type: CostType::VolumeDiscount,
        name: CostType::VolumeDiscount.as_str().to_owned(),
        reference: None,
        hold: discount(PaymentType::Hold, price.storage.hold.clone()),
        stream: discount(PaymentType::Superfluid, per_second(&price.storage.stream)),
        credit: discount(PaymentType::Credit, per_second(&price.storage.credit)),
        size_mib: None,
    };
    let mut rows = vec![execution];
    if !volumes.is_empty() {
        rows.extend(volumes);
        rows.push(discount);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use aleph_message::MessageType;
    use serde_json::{Value, json};

    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn instance(vcpus: u64, memory: u64, rootfs_mib: u64) -> Content {
        let content = json!({"address": "0xA", "time": 1.0, "allow_amend": false, "environment": {},
            "resources": {"vcpus": vcpus, "memory": memory}, "payment": {"type": "credit"},
            "rootfs": {"parent": {"ref": "a".repeat(64)}, "persistence": "host", "size_mib": rootfs_mib}});
        Content::parse(MessageType::Instance, content).unwrap()
    }

    fn program(persistent: bool, internet: bool, volumes: Value) -> Content {
        let content = json!({"address": "0xA", "time": 1.0, "allow_amend": false, "type": "vm-function",
            "environment": {"internet": internet}, "resources": {"vcpus": 1, "memory": 2048},
            "code": {"encoding": "zip", "entrypoint": "main:app", "ref": "c".repeat(64)},
            "runtime": {"ref": "d".repeat(64), "comment": ""}, "on": {"http": true, "persistent": persistent},
            "volumes": volumes});
        Content::parse(MessageType::Program, content).unwrap()
    }

    fn store() -> Content {
        let content = json!({"address": "0xA", "time": 1.0, "item_type": "storage", "item_hash": "a".repeat(64)});
        Content::parse(MessageType::Store, content).unwrap()
    }

    fn cost(content: &Content, payment: PaymentType, bytes: u64) -> Decimal {
        let rows = costs(content, payment, &Prices::default(), &|_, _| Some(bytes)).unwrap();
        total(&rows, payment)
    }

    #[test]
    fn an_instance_of_one_unit_costs_14250_credits_an_hour_whatever_its_disk() {
        for disk in [4096, 20480] {
            let per_second = cost(&instance(1, 2048, disk), PaymentType::Credit, 0);
            assert_eq!(per_second.to_fixed(), "3.958333333333333333");
            assert_eq!(
                required_credits(&per_second).to_string(),
                "341999.999999999999971200"
            );
        }
        let rows = costs(
            &instance(1, 2048, 20480),
            PaymentType::Credit,
            &Prices::default(),
            &|_, _| None,
        )
        .unwrap();
        let kinds: Vec<&str> = rows.iter().map(|row| row.cost_type.as_str()).collect();
        assert_eq!(
            kinds,
            [
                "EXECUTION",
                "EXECUTION_INSTANCE_VOLUME_ROOTFS",
                "EXECUTION_VOLUME_DISCOUNT"
            ]
        );
    }

    #[test]
    fn memory_decides_the_units_when_it_is_more() {
        let hourly =
            cost(&instance(1, 4096, 20480), PaymentType::Credit, 0).times(&3600_u64.into());
        assert!(hourly > decimal("28499.99") && hourly <= decimal("28500"));
        assert_eq!(
            cost(&instance(1, 2049, 20480), PaymentType::Hold, 0),
            decimal("2000")
        );
    }

    #[test]
    fn disk_beyond_what_is_included_is_charged() {
        assert_eq!(
            cost(&instance(1, 2048, 20480 + 100), PaymentType::Hold, 0),
            decimal("1005")
        );
    }

    #[test]
    fn small_files_cost_as_much_as_25_mib_in_credits() {
        let per_second = cost(&store(), PaymentType::Credit, 1024);
        assert_eq!(per_second.to_fixed(), "0.001247742293793479");
        let required = required_credits(&per_second);
        assert!(required > decimal("107.8") && required < decimal("107.81"));
    }

    #[test]
    fn a_file_of_3_gib_needs_13247_credits() {
        let required = required_credits(&cost(&store(), PaymentType::Credit, 3 << 30));
        assert!(
            required > decimal("13246") && required < decimal("13247.1"),
            "{required}"
        );
    }

    #[test]
    fn a_held_file_of_100_mib_needs_a_third_of_its_size() {
        assert_eq!(
            cost(&store(), PaymentType::Hold, 100 << 20),
            decimal("33.3333333")
        );
    }

    #[test]
    fn a_program_with_internet_costs_double_unless_it_is_kept_running() {
        let volumes = json!([]);
        assert_eq!(
            cost(
                &program(false, false, volumes.clone()),
                PaymentType::Hold,
                1 << 20
            ),
            decimal("200")
        );
        assert_eq!(
            cost(
                &program(false, true, volumes.clone()),
                PaymentType::Hold,
                1 << 20
            ),
            decimal("400")
        );
        assert_eq!(
            cost(&program(true, true, volumes), PaymentType::Hold, 1 << 20),
            decimal("1000")
        );
    }

    #[test]
    fn volumes_have_their_place_and_mount_as_name() {
        let volumes = json!([{"ref": "e".repeat(64), "mount": "/a"}, {"size_mib": 10}]);
        let content = program(false, false, volumes);
        let rows = costs(
            &content,
            PaymentType::Credit,
            &Prices::default(),
            &|_, _| Some(1),
        )
        .unwrap();
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "program",
                "EXECUTION_PROGRAM_VOLUME_CODE",
                "EXECUTION_PROGRAM_VOLUME_RUNTIME",
                "#0:/a",
                "#1:EXECUTION_VOLUME_PERSISTENT",
                "EXECUTION_VOLUME_DISCOUNT"
            ]
        );
        // A single byte costs next to nothing, but at least one credit an hour.
        assert_eq!(rows[1].credit.to_fixed(), "0.000277777777777777");
    }

    #[test]
    fn a_gpu_is_not_priced() {
        let mut raw = instance(1, 2048, 20480).raw;
        raw["environment"] = json!({"hypervisor": "qemu"});
        raw["requirements"] = json!({"gpu": [{"vendor": "N", "device_name": "d", "device_class": "0300", "device_id": "1:2"}]});
        let content = Content::parse(MessageType::Instance, raw).unwrap();
        assert_eq!(
            costs(
                &content,
                PaymentType::Credit,
                &Prices::default(),
                &|_, _| None
            ),
            Err(CostError::Gpu)
        );
    }
}
