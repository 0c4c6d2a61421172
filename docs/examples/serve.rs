// SPDX-License-Identifier: LGPL-2.1-or-later

//! serve SERVICE: registers a listener by libsockbroker, whose few functions are declared here.
//!     rustc --edition 2021 serve.rs
use std::ffi::{CStr, CString};
use std::io::{Error, Write};
use std::net::TcpListener;
use std::os::raw::{c_char, c_int, c_uint};
use std::os::unix::io::AsRawFd;
use std::ptr;

#[repr(C)]
struct Client {
    _opaque: [u8; 0],
}

#[link(name = "sockbroker")]
extern "C" {
    fn sockbroker_new(ret: *mut *mut Client, runtime_dir: *const c_char) -> c_int;
    fn sockbroker_unref(broker: *mut Client) -> *mut Client;
    fn sockbroker_get_message(broker: *mut Client) -> *const c_char;
    fn sockbroker_register(broker: *mut Client, service: *const c_char, fds: *const c_int, n: c_uint) -> c_int;
}

struct Broker(*mut Client);

impl Broker {
    fn new() -> Result<Self, Error> {
        let mut client = ptr::null_mut();
        let result = unsafe { sockbroker_new(&mut client, ptr::null()) };
        if result < 0 { Err(Error::from_raw_os_error(-result)) } else { Ok(Broker(client)) }
    }

    /// The listener serves for as long as it is open.
    fn register(&self, service: &str, listener: &TcpListener) -> Result<(), Error> {
        let name = CString::new(service)?;
        let result = unsafe { sockbroker_register(self.0, name.as_ptr(), &listener.as_raw_fd(), 1) };
        if result >= 0 {
            return Ok(());
        }
        let message = unsafe { CStr::from_ptr(sockbroker_get_message(self.0)) }.to_string_lossy().into_owned();
        Err(Error::new(Error::from_raw_os_error(-result).kind(), message))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        unsafe { sockbroker_unref(self.0) };
    }
}

fn main() -> Result<(), Error> {
    let service = std::env::args().nth(1).unwrap_or("web".to_string());
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Broker::new()?.register(&service, &listener)?;
    println!("ready");
    for client in listener.incoming() {
        let _ = writeln!(client?, "{service} in Rust"); // one that has gone is no matter
    }
    Ok(())
}
