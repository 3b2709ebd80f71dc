"""The residual block of ResNet18, as torchvision's, whose import would load torch's compiler."""

from __future__ import annotations

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions with batch norm, beside a shortcut.

    Source: He et al. (2016), as in torchvision, down to names and the order of random draws.

    Args:
        entering: Channels that come in.
        leaving: Channels that go out.
        stride: Of the first convolution.
        shortcut: Brings what comes in to the shape of what goes out; None where that is the same.
    """

    def __init__(
        self, entering: int, leaving: int, stride: int = 1, shortcut: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, leaving, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(leaving)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(leaving, leaving, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(leaving)
        self.downsample = shortcut

    def forward(self, images: Tensor) -> Tensor:
        """Return (k, leaving, H / stride, W / stride) of (k, entering, H, W)."""
        hidden = self.relu(self.bn1(self.conv1(images)))
        hidden = self.bn2(self.conv2(hidden))
        hidden += images if self.downsample is None else self.downsample(images)
        return self.relu(hidden)  # type: ignore[no-any-return]
