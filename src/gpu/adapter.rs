//! The adapters of the machine, each once.

/// Discrete GPUs first, then integrated ones, then others, software drivers last; without OpenGL.
pub async fn adapters() -> Vec<wgpu::Adapter> {
    let backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut adapters = instance.enumerate_adapters(backends).await;
    // One graphics card may answer to two of Vulkan, DX12 and Metal. Cards of one model on one
    // backend are different cards.
    let mut seen: Vec<wgpu::AdapterInfo> = Vec::new();
    adapters.retain(|adapter| {
        let info = adapter.get_info();
        let again = seen.iter().any(|other| {
            other.backend != info.backend
                && (other.vendor, other.device, &other.name)
                    == (info.vendor, info.device, &info.name)
        });
        seen.push(info);
        !again
    });
    adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    adapters
}
