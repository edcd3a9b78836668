//! The fields of a point: their names, how DCGM rounds them, and where a GPU has them.

use super::gpu::Gpu;

/// One metric.
#[derive(Debug)]
pub struct Field {
    /// DCGM's name for it.
    pub name: &'static str,
    /// Digits behind the point, at most.
    pub(super) decimals: u8,
    pub(super) read: fn(&Gpu) -> f64,
}

const fn whole(name: &'static str, read: fn(&Gpu) -> f64) -> Field {
    Field { name, decimals: 0, read }
}

/// Profiling fields: a share of the time, from 0 to 1.
const fn ratio(name: &'static str, read: fn(&Gpu) -> f64) -> Field {
    Field { name, decimals: 6, read }
}

/// A healthy GPU has none.
const fn none(name: &'static str) -> Field {
    whole(name, |_| 0.0)
}

/// All metrics: first those that every dump has, then the others that dcgm-exporter collects unless told otherwise, then
/// some that operators add.
pub static FIELDS: [Field; 30] = [
    whole("DCGM_FI_DEV_GPU_UTIL", |gpu| gpu.busy * 100.0),        // %
    whole("DCGM_FI_DEV_MEM_COPY_UTIL", |gpu| gpu.dram() * 100.0), // %
    Field { name: "DCGM_FI_DEV_POWER_USAGE", decimals: 3, read: |gpu| gpu.power_w },
    whole("DCGM_FI_DEV_GPU_TEMP", |gpu| gpu.temp_c),
    whole("DCGM_FI_DEV_FB_USED", |gpu| gpu.fb_used_mib),
    whole("DCGM_FI_DEV_FB_FREE", Gpu::fb_free_mib),
    none("DCGM_FI_DEV_DEC_UTIL"), // %
    none("DCGM_FI_DEV_ENC_UTIL"), // %
    whole("DCGM_FI_DEV_SM_CLOCK", Gpu::sm_clock_mhz),
    whole("DCGM_FI_DEV_MEM_CLOCK", |_| 2619.0), // MHz, of HBM3 whether it works or not
    whole("DCGM_FI_DEV_MEMORY_TEMP", Gpu::memory_temp_c),
    whole("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", |gpu| gpu.energy_mj),
    none("DCGM_FI_DEV_PCIE_REPLAY_COUNTER"),
    none("DCGM_FI_DEV_XID_ERRORS"),              // the last code
    whole("DCGM_FI_DEV_FB_RESERVED", |_| 552.0), // MiB
    whole("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", |gpu| gpu.nvlink_mb),
    none("DCGM_FI_DEV_VGPU_LICENSE_STATUS"),
    none("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS"),
    none("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS"),
    none("DCGM_FI_DEV_ROW_REMAP_FAILURE"),
    ratio("DCGM_FI_PROF_GR_ENGINE_ACTIVE", |gpu| gpu.busy),
    ratio("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", Gpu::tensor),
    ratio("DCGM_FI_PROF_DRAM_ACTIVE", Gpu::dram),
    whole("DCGM_FI_PROF_PCIE_TX_BYTES", |gpu| gpu.pcie_bytes(0.4)), // bytes a second
    whole("DCGM_FI_PROF_PCIE_RX_BYTES", |gpu| gpu.pcie_bytes(1.0)),
    none("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL"),
    none("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"),
    whole("DCGM_FI_DEV_POWER_VIOLATION", |gpu| gpu.power_violation_ns),
    none("DCGM_FI_DEV_THERMAL_VIOLATION"), // ns
    ratio("DCGM_FI_PROF_SM_ACTIVE", |gpu| gpu.busy * 0.87),
];
