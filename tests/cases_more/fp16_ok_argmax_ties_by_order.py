# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_argmax_ties_by_order', tier='none', verdict='PASS', culprit_op=None,
 expect='argmax of equal values takes the first')
class M(nn.Module):
    def forward(self, x): return torch.argmax(torch.relu(x), -1)
def build(): return M().eval()
def inputs(): return (torch.tensor([[-1.0, -2.0, -3.0, -4.0], [1.0, 5.0, 5.0, 2.0]]),)
