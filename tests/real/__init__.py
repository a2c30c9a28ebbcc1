"""The shim under real containerds, runc and the kernel; each test also runs against the Go shim."""
