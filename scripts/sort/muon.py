"""Muon: momentum, with each matrix's step made orthogonal by five Newton-Schulz iterations."""

import torch


class Muon(torch.optim.Optimizer):
    """Matrices of one shape are worked on together, which for small ones is several times faster than torch's own."""

    def __init__(self, parameters, lr, momentum=0.95):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for (rows, columns), parameters in by_shape.items():
                gradients = torch.stack([parameter.grad for parameter in parameters])
                before = [self.state[parameter].setdefault("momentum", torch.zeros_like(parameter)) for parameter in parameters]
                averages = torch.stack(before).lerp(gradients, 1 - group["momentum"])
                torch._foreach_copy_(before, list(averages))
                steps = orthogonal(gradients.lerp(averages, group["momentum"])) * max(1, rows / columns) ** 0.5
                torch._foreach_add_(parameters, list(steps), alpha=-group["lr"])


def orthogonal(matrices):
    """The orthogonal matrices nearest to ``matrices`` [n, rows, columns], roughly: singular values within 0.7 and 1.2."""
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return x if wide else x.mT
