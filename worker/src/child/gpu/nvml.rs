//! Clocks, temperature and power, as the management library tells them. It is optional: nothing depends on it.

use std::ffi::{CString, c_char, c_uint, c_void};

use libloading::os::unix::Library;

type Handle = *mut c_void;
type Number = unsafe extern "C" fn(Handle, *mut c_uint) -> c_uint;
type Selected = unsafe extern "C" fn(Handle, c_uint, *mut c_uint) -> c_uint;

/// A device as NVML knows it.
pub(super) struct Nvml {
    device: Handle,
    clock: Selected,
    temperature: Selected,
    power: Number,
    _library: Library,
}

/// The driver's version in NVIDIA's own counting: `580.159.04`.
pub(super) fn driver_version() -> Option<String> {
    let library = start()?;
    let mut text = [0u8; 96];
    // SAFETY: the types are those of the documented API; room for as many bytes as are told.
    let read = unsafe {
        let version = library.get::<unsafe extern "C" fn(*mut c_char, c_uint) -> c_uint>(b"nvmlSystemGetDriverVersion\0").ok()?;
        version(text.as_mut_ptr().cast(), 95)
    };
    let text = std::ffi::CStr::from_bytes_until_nul(&text).ok()?;
    (read == 0).then(|| text.to_string_lossy().into_owned())
}

fn start() -> Option<Library> {
    // SAFETY: loading a library of the driver and calling its documented initialiser.
    unsafe {
        let library = Library::new("libnvidia-ml.so.1").ok()?;
        let start = *library.get::<unsafe extern "C" fn() -> c_uint>(b"nvmlInit_v2\0").ok()?;
        (start() == 0).then_some(library)
    }
}

impl Nvml {
    /// Finds a device by its identity.
    pub(super) fn open(uuid: &str) -> Option<Self> {
        let library = start()?;
        let (uuid, mut device) = (CString::new(uuid).ok()?, std::ptr::null_mut());
        // SAFETY: the types are those of the documented API.
        unsafe {
            let find =
                library.get::<unsafe extern "C" fn(*const c_char, *mut Handle) -> c_uint>(b"nvmlDeviceGetHandleByUUID\0").ok()?;
            if find(uuid.as_ptr(), &raw mut device) != 0 {
                return None;
            }
            let clock = *library.get::<Selected>(b"nvmlDeviceGetClockInfo\0").ok()?;
            let temperature = *library.get::<Selected>(b"nvmlDeviceGetTemperature\0").ok()?;
            let power = *library.get::<Number>(b"nvmlDeviceGetPowerUsage\0").ok()?;
            Some(Self { device, clock, temperature, power, _library: library })
        }
    }

    /// `SM 1980 MHz, memory 2619 MHz, 41 °C, 310 W`, as far as it tells.
    pub(super) fn conditions(&self) -> Option<String> {
        let selected = |read: Selected, which| {
            let mut value = 0;
            // SAFETY: the device was found by this library.
            (unsafe { read(self.device, which, &raw mut value) } == 0).then_some(value)
        };
        let mut power = 0;
        // SAFETY: as above.
        let power = (unsafe { (self.power)(self.device, &raw mut power) } == 0).then_some(power);
        let words = [
            selected(self.clock, 1).map(|mhz| format!("SM {mhz} MHz")),
            selected(self.clock, 2).map(|mhz| format!("memory {mhz} MHz")),
            selected(self.temperature, 0).map(|c| format!("{c} °C")),
            power.map(|mw| format!("{} W", mw / 1000)),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}
