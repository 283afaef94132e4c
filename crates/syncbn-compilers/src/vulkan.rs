//! Compute pipelines on the first Vulkan device, made as in wgpu-hal, with the compiler's reports.
//! It does not use wgpu, because wgpu opens no device that only compiles.
#![allow(unsafe_code)]

use std::ffi::CStr;

use ash::vk;

use crate::translate::ENTRY;

/// The layout of a module: a uniform buffer, storage buffers, and behind them a second uniform
/// buffer where it has lengths.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Storage buffers.
    pub storage_buffers: u32,
    /// Whether there is the second uniform buffer.
    pub has_lengths: bool,
}

/// A failure of Vulkan.
#[derive(Debug, thiserror::Error)]
pub enum VulkanError {
    /// There is no loader.
    #[error("no Vulkan loader: {0}")]
    Loader(#[from] ash::LoadingError),
    /// A call failed.
    #[error("{call}: {code}")]
    Call {
        /// The call's name.
        call: &'static str,
        /// Its result.
        code: vk::Result,
    },
    /// The loader knows no device.
    #[error("there is no Vulkan device")]
    NoDevice,
    /// The compiler reports nothing of a pipeline, so nothing can be said of its registers.
    #[error("the driver reports nothing of the pipeline")]
    NoStatistics,
}

/// Turns a result of a call into an error that names it.
fn failed(call: &'static str) -> impl Fn(vk::Result) -> VulkanError {
    move |code| VulkanError::Call { call, code }
}

/// A number that a compiler reports of a pipeline, with its name.
pub type Statistic = (String, u64);

/// A device that compiles.
pub struct Compiler {
    /// The device's name.
    pub name: String,
    device: ash::Device,
    executables: ash::khr::pipeline_executable_properties::Device,
    instance: ash::Instance,
    // Holds the loader.
    _entry: ash::Entry,
}

impl Compiler {
    /// The first device, with every feature that it has.
    ///
    /// # Errors
    ///
    /// There is no loader or no device, or it cannot be opened.
    pub fn open() -> Result<Self, VulkanError> {
        // SAFETY: the library found is Vulkan's loader, and is kept as long as the instance.
        let entry = unsafe { ash::Entry::load()? };
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let information = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: the information is valid and outlives the call; the loader is kept beside the
        // instance.
        let instance = unsafe { entry.create_instance(&information, None) }
            .map_err(failed("vkCreateInstance"))?;
        // SAFETY: the instance was just made.
        let devices = unsafe { instance.enumerate_physical_devices() }
            .map_err(failed("vkEnumeratePhysicalDevices"))?;
        let physical = *devices.first().ok_or(VulkanError::NoDevice)?;
        // SAFETY: the device is one of the instance's.
        let properties = unsafe { instance.get_physical_device_properties(physical) };
        let name = properties.device_name_as_c_str().unwrap_or(c"?").to_string_lossy().into_owned();
        let device = open_device(&instance, physical)?;
        let executables = ash::khr::pipeline_executable_properties::Device::new(&instance, &device);
        Ok(Self { name, device, executables, instance, _entry: entry })
    }

    /// Compiles a module of this layout. Returns the compiler's report.
    ///
    /// # Errors
    ///
    /// The driver refuses it, or reports nothing.
    pub fn compile(
        &self,
        module: &[u32],
        Layout { storage_buffers, has_lengths }: Layout,
    ) -> Result<Vec<Statistic>, VulkanError> {
        let device = &self.device;
        let entry = |binding| {
            let kind = match binding {
                0 => vk::DescriptorType::UNIFORM_BUFFER,
                _ if binding > storage_buffers => vk::DescriptorType::UNIFORM_BUFFER,
                _ => vk::DescriptorType::STORAGE_BUFFER,
            };
            vk::DescriptorSetLayoutBinding::default()
                .binding(binding)
                .descriptor_type(kind)
                .descriptor_count(1)
                .stage_flags(vk::ShaderStageFlags::COMPUTE)
        };
        let last = storage_buffers + u32::from(has_lengths);
        let entries: Vec<_> = (0..=last).map(entry).collect();
        let set = vk::DescriptorSetLayoutCreateInfo::default().bindings(&entries);
        // SAFETY: here and below: every structure is valid and outlives its call, and every handle
        // was made by this device.
        let sets = [unsafe { device.create_descriptor_set_layout(&set, None) }
            .map_err(failed("vkCreateDescriptorSetLayout"))?];
        let layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
        // SAFETY: as above.
        let layout = unsafe { device.create_pipeline_layout(&layout, None) }
            .map_err(failed("vkCreatePipelineLayout"))?;
        let code = vk::ShaderModuleCreateInfo::default().code(module);
        // SAFETY: as above; that the module is valid SPIR-V, spirv-val has said.
        let module = unsafe { device.create_shader_module(&code, None) }
            .map_err(failed("vkCreateShaderModule"))?;
        let statistics = self.pipeline(module, layout);
        // SAFETY: as above, and nothing is in use: no pipeline is left.
        unsafe {
            device.destroy_shader_module(module, None);
            device.destroy_pipeline_layout(layout, None);
            device.destroy_descriptor_set_layout(sets[0], None);
        }
        statistics
    }

    fn pipeline(
        &self,
        module: vk::ShaderModule,
        layout: vk::PipelineLayout,
    ) -> Result<Vec<Statistic>, VulkanError> {
        let entry = format!("{ENTRY}\0");
        let stage = vk::PipelineShaderStageCreateInfo::default()
            // As on a device that was asked for subgroups.
            .flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE)
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(CStr::from_bytes_until_nul(entry.as_bytes()).unwrap_or_default());
        let pipeline = vk::ComputePipelineCreateInfo::default()
            .flags(vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR)
            .stage(stage)
            .layout(layout);
        // SAFETY: as above.
        let made = unsafe {
            self.device.create_compute_pipelines(vk::PipelineCache::null(), &[pipeline], None)
        };
        let made = made.map_err(|(_, code)| failed("vkCreateComputePipelines")(code))?;
        let asked = vk::PipelineExecutableInfoKHR::default().pipeline(made[0]).executable_index(0);
        // SAFETY: as above, and statistics were asked for when the pipeline was made.
        let reported = unsafe { self.executables.get_pipeline_executable_statistics(&asked) };
        // SAFETY: as above; the pipeline was never used.
        unsafe { self.device.destroy_pipeline(made[0], None) };
        let reported = reported.map_err(failed("vkGetPipelineExecutableStatisticsKHR"))?;
        let statistics: Vec<Statistic> = reported.iter().filter_map(number).collect();
        if statistics.is_empty() { Err(VulkanError::NoStatistics) } else { Ok(statistics) }
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        // SAFETY: nothing that was made on them is left, and they are not used again.
        unsafe {
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

/// A device with every feature that it has of those that a shader could ask for.
fn open_device(
    instance: &ash::Instance,
    physical: vk::PhysicalDevice,
) -> Result<ash::Device, VulkanError> {
    let queues =
        [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
    let mut robust = vk::PhysicalDeviceRobustness2FeaturesEXT::default();
    let mut executables = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default();
    let mut of_1_1 = vk::PhysicalDeviceVulkan11Features::default();
    let mut of_1_2 = vk::PhysicalDeviceVulkan12Features::default();
    let mut of_1_3 = vk::PhysicalDeviceVulkan13Features::default();
    let mut features = vk::PhysicalDeviceFeatures2::default()
        .push_next(&mut robust)
        .push_next(&mut executables)
        .push_next(&mut of_1_1)
        .push_next(&mut of_1_2)
        .push_next(&mut of_1_3);
    // SAFETY: the chain is of structures that Vulkan 1.3 knows or ignores.
    unsafe { instance.get_physical_device_features2(physical, &mut features) };
    let extensions = [
        ash::khr::pipeline_executable_properties::NAME.as_ptr(),
        ash::ext::robustness2::NAME.as_ptr(),
    ];
    let information = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_extension_names(&extensions)
        .push_next(&mut features);
    // SAFETY: the features are those that the device has, and the extensions' names end in zeros.
    unsafe { instance.create_device(physical, &information, None) }
        .map_err(failed("vkCreateDevice"))
}

/// A statistic that is a whole number.
fn number(reported: &vk::PipelineExecutableStatisticKHR<'_>) -> Option<Statistic> {
    let name = reported.name_as_c_str().ok()?.to_string_lossy().into_owned();
    let whole = [
        vk::PipelineExecutableStatisticFormatKHR::UINT64,
        vk::PipelineExecutableStatisticFormatKHR::INT64,
    ];
    // SAFETY: the format says which member is set; a negative number is none of a count.
    whole.contains(&reported.format).then_some((name, unsafe { reported.value.u64 }))
}
