# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_background_subtraction', tier='wide', verdict='FAIL', culprit_op=['cast', 'sub'],
 expect="a faint signal over a sensor's pedestal")
class M(nn.Module):
    def forward(self, a, b): return (a - b) * 10
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); b = torch.rand(1, 1, 8, 8) * 100 + 4000; return (b + torch.rand(1, 1, 8, 8), b)
