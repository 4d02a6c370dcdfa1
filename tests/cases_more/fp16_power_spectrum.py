# SPDX-License-Identifier: Apache-2.0
import math
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_power_spectrum', tier='wide', verdict='FAIL', culprit_op=['mul', 'pow', 'square', 'add', 'conv'],
 expect='power of the spectrum of 16-bit audio')
class M(nn.Module):
    def __init__(self):
        super().__init__(); n = 64; k = torch.arange(n).float(); a = 2 * math.pi * torch.outer(k[:33], k) / n
        self.register_buffer("re", torch.cos(a)[:, None]); self.register_buffer("im", -torch.sin(a)[:, None])
    def forward(self, x):
        re = F.conv1d(x, self.re, stride=32); im = F.conv1d(x, self.im, stride=32)
        return torch.log10(re * re + im * im + 1.0)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); t = torch.arange(512).float(); return ((8000 * torch.sin(t * 0.6) + 300 * torch.randn(512))[None, None],)
