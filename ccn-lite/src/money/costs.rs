//! The cost rows of a message: one for what runs, one for each file and volume, one that takes off what is included
//! (spec ccn-api §4.2).

use aleph_message::{Body, Content, ItemHash, PaymentType};

use super::machine::{self, Machine};
use super::volume::{self, Volume};
use super::{CompatibleGpus, Decimal, Prices, Product, ProductPrice, Rates};

/// Credits must last this long when something is created.
pub const SECONDS_PER_DAY: u64 = 86_400;

/// A file is charged for at least this much when paid with credits, MiB.
const MIN_CREDIT_STORE_MIB: u64 = 25;

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
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Execution,
        Self::InstanceRootfs,
        Self::ProgramCode,
        Self::ProgramRuntime,
        Self::ProgramData,
        Self::VolumeImmutable,
        Self::VolumePersistent,
        Self::VolumeDiscount,
        Self::Storage,
    ];

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
    /// `settings` has no such device.
    #[error("GPU {0} is not among the network's compatible GPUs")]
    UnknownGpu(String),
    /// No tier of the price list has the model.
    #[error("the price list has no GPU {0}")]
    UnpricedGpu(String),
    /// The price list lacks the product.
    #[error("the price list has no {0}")]
    Unpriced(&'static str),
}

/// What prices are computed from: the price list and the network's GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tariff {
    /// The price list.
    pub prices: Prices,
    /// The GPUs.
    pub gpus: CompatibleGpus,
}

impl Tariff {
    pub(super) fn price(&self, product: Product) -> Result<&ProductPrice, CostError> {
        self.prices
            .of(product)
            .ok_or(CostError::Unpriced(product.key()))
    }
}

/// Size in bytes of the file a STORE message stands for, by the message's hash and whether its newest update is meant
/// (for a STORE content: of the file itself); none when it is not known.
pub type SizeOf<'a> = dyn Fn(&ItemHash, bool) -> Option<u64> + 'a;

/// The sum of the rows in one way of paying: tokens to hold, tokens a second, or credits a second.
pub fn total(rows: &[CostRow], payment: PaymentType) -> Decimal {
    rows.iter().map(|row| row.amount(payment).clone()).sum()
}

/// Credits an account must own to spend `per_second` for a day. Not rounded: it is compared as it is.
pub fn required_credits(per_second: &Decimal) -> Decimal {
    per_second.times(&Decimal::from(SECONDS_PER_DAY))
}

/// Amounts a second from rates a second: `units` of them.
pub(super) fn amounts(units: &Decimal, rates: &Rates, payment: PaymentType) -> Rates {
    let credit = units.times(&rates.credit).floored();
    Rates {
        hold: units.times(&rates.hold).floored(),
        stream: units.times(&rates.stream).floored(),
        // Whoever pays with credits pays at least one an hour for each row.
        credit: if payment == PaymentType::Credit {
            credit.max(Decimal::from(1_u64).over(3600).floored())
        } else {
            credit
        },
    }
}

/// The cost rows of a content; none for types that cost nothing. Files whose size is not known are left out.
///
/// # Errors
/// For contents this node has no price for.
pub fn costs(
    content: &Content,
    payment: PaymentType,
    tariff: &Tariff,
    size_of: &SizeOf<'_>,
) -> Result<Vec<CostRow>, CostError> {
    match &content.body {
        Body::Store(store) => stored(
            tariff,
            size_of(&store.item_hash, false).unwrap_or(0),
            payment,
        ),
        Body::Program(program) => {
            let persistent = program.is_persistent();
            let machine = Machine {
                product: if persistent {
                    Product::ProgramPersistent
                } else {
                    Product::Program
                },
                resources: &program.executable.resources,
                multiplier: if !persistent && program.environment.internet {
                    2
                } else {
                    1
                },
            };
            let volumes = volume::of_program(program, size_of);
            machine::costs(&machine, volumes, payment, tariff)
        }
        Body::Instance(instance) => {
            let executable = &instance.executable;
            let volumes = volume::of_instance(instance, size_of);
            let gpus = executable
                .requirements
                .as_ref()
                .and_then(|requirements| requirements.gpu.as_deref())
                .unwrap_or_default();
            if !gpus.is_empty() {
                return machine::gpu_costs(&executable.resources, gpus, volumes, payment, tariff);
            }
            let machine = Machine {
                product: if instance.environment.trusted_execution.is_some() {
                    Product::InstanceConfidential
                } else {
                    Product::Instance
                },
                resources: &executable.resources,
                multiplier: 1,
            };
            machine::costs(&machine, volumes, payment, tariff)
        }
        Body::VerifiableProgram(program) => {
            let machine = Machine {
                product: Product::InstanceConfidential,
                resources: &program.resources,
                multiplier: 1,
            };
            // Verified volumes cost nothing.
            machine::costs(&machine, Vec::new(), payment, tariff)
        }
        Body::Post(_) | Body::Aggregate(_) | Body::Forget(_) => Ok(Vec::new()),
    }
}

/// The row of a stored file of `bytes`; none for an empty one.
///
/// # Errors
/// When the price list has no storage.
pub fn stored(
    tariff: &Tariff,
    bytes: u64,
    payment: PaymentType,
) -> Result<Vec<CostRow>, CostError> {
    let rates = tariff.price(Product::Storage)?.storage.by_second();
    if bytes == 0 {
        return Ok(Vec::new());
    }
    let mut size_mib = Decimal::mib_of_bytes(bytes);
    if payment == PaymentType::Credit {
        size_mib = size_mib.max(MIN_CREDIT_STORE_MIB.into());
    }
    let volume = Volume {
        cost_type: CostType::Storage,
        name: CostType::Storage.as_str().to_owned(),
        reference: None,
        size_mib,
    };
    Ok(vec![volume.row(&rates, payment)])
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
        let rows = costs(content, payment, &Tariff::default(), &|_, _| Some(bytes)).unwrap();
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
            &Tariff::default(),
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
            &Tariff::default(),
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

    fn with_gpus(vcpus: u64, memory: u64, devices: &[&str]) -> Content {
        let mut raw = instance(vcpus, memory, 20480).raw;
        raw["environment"] = json!({"hypervisor": "qemu"});
        let gpus = devices.iter().map(|device| {
            json!({"vendor": "N", "device_name": "d", "device_class": "0300", "device_id": device})
        });
        raw["requirements"] = json!({"gpu": gpus.collect::<Vec<_>>()});
        Content::parse(MessageType::Instance, raw).unwrap()
    }

    fn tariff_with_gpus() -> Tariff {
        let settings = json!({"compatible_gpus": [
            {"device_id": "10de:2684", "model": "RTX 4090"}, {"device_id": "10de:20b5", "model": "A100"},
            {"device_id": "10de:0000", "model": "unheard of"}]});
        Tariff {
            gpus: CompatibleGpus::from_aggregate(&settings),
            ..Tariff::default()
        }
    }

    #[test]
    fn gpus_of_two_tiers_have_a_row_each_and_resources_beyond_them_count_for_the_dearer() {
        let executions = |content: &Content| -> Vec<(String, String)> {
            costs(
                content,
                PaymentType::Credit,
                &tariff_with_gpus(),
                &|_, _| None,
            )
            .unwrap()
            .into_iter()
            .filter(|row| row.cost_type == CostType::Execution)
            .map(|row| (row.name, row.hold.to_string()))
            .collect()
        };
        let row = |name: &str, hold: &str| (name.to_owned(), format!("{hold}.000000000000000000"));
        assert_eq!(
            executions(&with_gpus(1, 2048, &["10de:2684"])),
            [row("instance_gpu_standard", "1680")]
        );
        assert_eq!(
            executions(&with_gpus(
                30,
                2048,
                &["10de:2684", "10de:20b5", "10de:2684"]
            )),
            [
                row("instance_gpu_standard", "3360"),
                row("instance_gpu_premium", "10080")
            ]
        );
    }

    #[test]
    fn a_gpu_without_a_price_is_named() {
        let error = |device: &str| {
            costs(
                &with_gpus(1, 2048, &[device]),
                PaymentType::Credit,
                &tariff_with_gpus(),
                &|_, _| None,
            )
            .unwrap_err()
            .to_string()
        };
        assert!(error("10de:ffff").contains("10de:ffff"));
        assert!(error("10de:0000").contains("unheard of"));
    }
}
