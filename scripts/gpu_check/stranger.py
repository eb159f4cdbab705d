"""A separate program that keeps a GPU busy until its standard input closes."""

SOURCE = """
import sys, threading, torch
device = sys.argv[1]
x = torch.randn(4096, 4096, device=device)
closed = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), closed.set()), daemon=True).start()
print("working", flush=True)
while not closed.is_set():
    for _ in range(20):
        torch.mm(x, x)
    torch.cuda.synchronize()
"""
