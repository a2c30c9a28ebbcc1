"""trioshim: a containerd shim for runc, on trio."""
