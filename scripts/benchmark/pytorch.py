"""The same training in PyTorch: one run in a loop, torch.func, and batched by hand."""

from __future__ import annotations

from typing import Any

from scripts.benchmark.cases import Net
from scripts.benchmark.contestant import ETA, Contestant


def torch_loop(net: Net) -> Contestant:
    """One run, one step after the other; a sweep would take `runs` times as long."""
    import torch

    layers: list[Any] = []
    for n, m in zip((net.inputs, *net.hidden), (*net.hidden, 1), strict=True):
        layers += [torch.nn.Linear(n, m, bias=net.bias), torch.nn.ReLU()]
    model, loss_fn = torch.nn.Sequential(*layers[:-1]), torch.nn.BCEWithLogitsLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=ETA)
    law = torch.randn if net.data == "gaussian" else torch.rand

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            x, y = law(net.batch, net.inputs), torch.randint(0, 2, (net.batch,)).float()
            loss_fn(model(x)[:, 0], y).backward()
            optimizer.step()

    return Contestant(run)


def torch_params(net: Net) -> list[Any]:
    """Weights (runs, in, out) and biases (runs, 1, out)."""
    import torch

    made = []
    for n, m in zip((net.inputs, *net.hidden), (*net.hidden, 1), strict=True):
        made.append(torch.randn(net.runs, n, m) / n**0.5)
        made += [torch.zeros(net.runs, 1, m)] if net.bias else []
    return made


def torch_func(net: Net) -> Contestant:
    """`torch.func.vmap` over `torch.func.grad`."""
    import torch

    law = torch.randn if net.data == "gaussian" else torch.rand
    per_layer = 2 if net.bias else 1

    def loss(params: Any, x: Any, y: Any) -> Any:
        for i in range(0, len(params), per_layer):
            x = x @ params[i]
            x = x + params[i + 1] if net.bias else x
            x = torch.relu(x) if i + per_layer < len(params) else x
        return torch.nn.functional.binary_cross_entropy_with_logits(x[:, 0], y)

    grad = torch.func.vmap(torch.func.grad(loss))
    state = torch_params(net)

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            x = law(net.runs, net.batch, net.inputs)
            y = torch.randint(0, 2, (net.runs, net.batch)).float()
            state = [p - ETA * g for p, g in zip(state, grad(state, x, y), strict=True)]

    return Contestant(run, net.runs)


def torch_batched(net: Net) -> Contestant:
    """Forward and backward by hand in batched matrix products, updated in place."""
    import torch

    law = torch.randn if net.data == "gaussian" else torch.rand
    per_layer = 2 if net.bias else 1
    params = torch_params(net)

    def run(steps: int) -> None:
        for _ in range(steps):
            hs = [law(net.runs, net.batch, net.inputs)]
            y = torch.randint(0, 2, (net.runs, net.batch, 1)).float()
            last = len(params) - per_layer
            for i in range(0, len(params), per_layer):
                a = (
                    torch.baddbmm(params[i + 1], hs[-1], params[i])
                    if net.bias
                    else torch.bmm(hs[-1], params[i])
                )
                hs.append(a if i == last else a.relu_())
            delta = (hs.pop().sigmoid_() - y) / net.batch
            for i in range(last, -1, -per_layer):
                h = hs.pop()
                down = torch.bmm(delta, params[i].mT).mul_(h > 0) if i else None
                params[i].baddbmm_(h.mT, delta, alpha=-ETA)
                if net.bias:
                    params[i + 1].sub_(delta.sum(1, keepdim=True), alpha=ETA)
                delta = down

    return Contestant(run, net.runs)
